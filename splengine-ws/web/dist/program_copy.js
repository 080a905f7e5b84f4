import { copy } from "./clipboard.js";
import { say } from "./dialogs.js";
import { prompt } from "./prompt.js";
import { changeSettings, settings } from "./settings.js";
let waiting = "";
export function programCopies(text) {
    const choice = settings().programCopy;
    if (choice === "block")
        return;
    if (choice === "allow")
        return void copied(text);
    waiting = text;
    prompt("A program in this terminal wants to put text into your clipboard. It can't read what is in there.", [
        { label: "Block", act: () => changeSettings({ programCopy: "block" }) },
        {
            label: "Allow",
            act: () => {
                changeSettings({ programCopy: "allow" });
                void copied(waiting);
            },
        },
    ]);
}
async function copied(text) {
    if (await copy(text))
        return say(`Copied by a program: ${text.length} characters.`);
    prompt(`A program has copied ${text.length} characters, which your browser lets through on a click only.`, [
        { label: "Ignore", act: () => null },
        { label: "Copy", act: () => void copy(text).then((done) => say(done ? "Copied." : "The browser does not let this page copy.", done ? "info" : "error")) },
    ]);
}
