export async function copy(text, near = document.body) {
    try {
        await navigator.clipboard.writeText(text);
        return true;
    }
    catch {
        return byCommand(text, near);
    }
}
function byCommand(text, near) {
    const focused = document.activeElement;
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    near.append(area);
    area.select();
    let done = false;
    try {
        done = document.execCommand("copy");
    }
    catch {
        done = false;
    }
    area.remove();
    focused?.focus();
    return done;
}
