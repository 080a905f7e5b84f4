export function make(tag, properties = {}, ...children) {
    const element = document.createElement(tag);
    const { class: classes, label, role, ...rest } = properties;
    if (classes)
        element.className = classes;
    if (label)
        element.setAttribute("aria-label", label);
    if (role)
        element.setAttribute("role", role);
    Object.assign(element, rest);
    element.append(...children.filter((child) => child !== null && child !== false));
    return element;
}
export function find(id) {
    const element = document.getElementById(id);
    if (!element)
        throw new Error(`the page lacks #${id}`);
    return element;
}
export function ago(time, now = Date.now()) {
    const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
    if (seconds < 10)
        return "now";
    if (seconds < 60)
        return `${seconds} s ago`;
    if (seconds < 3600)
        return `${Math.floor(seconds / 60)} min ago`;
    if (seconds < 86_400)
        return `${Math.floor(seconds / 3600)} h ago`;
    return `${Math.floor(seconds / 86_400)} d ago`;
}
