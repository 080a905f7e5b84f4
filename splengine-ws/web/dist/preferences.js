import { dialog, field } from "./dialogs.js";
import { make } from "./dom.js";
import { changeSettings, clampFontSize, MAX_FONT_SIZE, MIN_FONT_SIZE, settings } from "./settings.js";
export async function preferences() {
    const now = settings();
    const size = make("input", { type: "number", value: String(now.fontSize), required: true });
    [size.min, size.max] = [String(MIN_FONT_SIZE), String(MAX_FONT_SIZE)];
    const reader = make("input", { type: "checkbox", checked: now.screenReader });
    const webgl = make("input", { type: "checkbox", checked: now.renderer === "auto" });
    const copies = make("select", {}, make("option", { value: "ask" }, "Ask"), make("option", { value: "allow" }, "Allow"), make("option", { value: "block" }, "Block"));
    copies.value = now.programCopy;
    await dialog("Settings", [
        field(`Font size, ${MIN_FONT_SIZE} to ${MAX_FONT_SIZE} pixels`, size),
        field("Programs that copy to the clipboard", copies),
        check("Screen reader support", reader),
        check("Draw with WebGL (switch off if text looks wrong)", webgl),
        make("p", { class: "hint" }, "These settings are kept in this browser."),
    ], { label: "Save" }, () => changeSettings({
        fontSize: clampFontSize(Number(size.value)),
        screenReader: reader.checked,
        renderer: webgl.checked ? "auto" : "dom",
        programCopy: copies.value,
    }));
}
function check(label, input) {
    return make("label", { class: "check" }, input, make("span", {}, label));
}
