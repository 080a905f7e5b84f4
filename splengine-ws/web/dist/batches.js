// The view of batches: which there are, how far each has come, and what its steps print.
import { api } from "./api.js";
import { attempt, confirmed, dialog, field, say } from "./dialogs.js";
import { ago, find, make } from "./dom.js";
import { EventParser, read } from "./events.js";
import { isShown, register } from "./views.js";
const EVERY = 3000;
const AGAIN = 2000;
/** As much of a step's output as is shown: its end. */
const MOST_SHOWN = 200_000;
export class Batches {
    #batches = [];
    #cursor = null;
    #problem = "";
    #open = null;
    #following = null;
    #reading = null;
    #step = null;
    #drawing = false;
    constructor() {
        register({
            id: "batches",
            label: "Batches",
            element: find("batches-view"),
            shown: () => void this.refresh(),
        });
        find("new-batch").addEventListener("click", () => void this.submit());
        find("more-batches").addEventListener("click", () => void this.#more());
        find("cancel-batch").addEventListener("click", () => void this.#cancel());
        find("rerun-failed").addEventListener("click", () => void this.#rerun(true));
        find("rerun-all").addEventListener("click", () => void this.#rerun(false));
        setInterval(() => {
            if (!document.hidden && isShown("batches"))
                void this.refresh();
        }, EVERY);
    }
    async refresh() {
        try {
            const page = await api.batches(null);
            // Pages that were asked for stay, with what is new in front.
            const ids = new Set(page.batches.map((batch) => batch.id));
            const older = this.#cursor === null && this.#batches.length === 0 ? [] : this.#batches.filter((batch) => !ids.has(batch.id) && batch.id < (page.batches.at(-1)?.id ?? ""));
            if (older.length === 0)
                this.#cursor = page.cursor;
            this.#batches = [...page.batches, ...older];
            this.#problem = "";
        }
        catch (error) {
            this.#problem = error instanceof Error ? error.message : String(error);
        }
        this.#drawList();
    }
    async submit() {
        const lines = make("textarea", { placeholder: "one command a line", required: true });
        lines.rows = 8;
        lines.spellcheck = false;
        const name = make("input", { type: "text", autocomplete: "off", placeholder: "none" });
        const atOnce = make("input", { type: "number", placeholder: "one after the other" });
        atOnce.min = "1";
        const batch = await dialog("New batch", [field("Commands", lines), field("Name", name), field("How many at once, in no order", atOnce)], { label: "Run" }, () => {
            const commands = lines.value.split("\n").map((line) => line.trim()).filter((line) => line !== "" && !line.startsWith("#"));
            const independent = atOnce.value !== "";
            return api.submitBatch({
                ...(name.value.trim() && { name: name.value.trim() }),
                ...(independent && { parallelism: Number(atOnce.value) }),
                steps: commands.map((command) => (independent ? { command, dependsOn: [] } : { command })),
            });
        });
        if (batch)
            this.#show(batch);
        await this.refresh();
    }
    async #more() {
        const page = await attempt(() => api.batches(this.#cursor));
        if (!page)
            return;
        this.#batches.push(...page.batches);
        this.#cursor = page.cursor;
        this.#drawList();
    }
    async #cancel() {
        const batch = this.#open;
        if (!batch || !(await confirmed("Cancel this batch?", "What runs is stopped, what waits is left out.", "Cancel it")))
            return;
        const record = await attempt(() => api.cancelBatch(batch.id));
        if (record && this.#open?.id === record.id)
            this.#update(record);
        await this.refresh();
    }
    async #rerun(onlyFailed) {
        const batch = this.#open;
        const again = batch && (await attempt(() => api.rerunBatch(batch.id, onlyFailed)));
        if (again) {
            this.#show(again);
            say(onlyFailed ? "What had not succeeded runs again, as a new batch." : "All of it runs again, as a new batch.");
        }
        await this.refresh();
    }
    async #choose(id) {
        const record = await attempt(() => api.batch(id));
        if (record)
            this.#show(record);
    }
    #show(record) {
        this.#following?.abort();
        this.#reading?.abort();
        this.#step = null;
        this.#open = record;
        find("batch-output").hidden = true;
        this.#update(record);
        this.#drawList();
        if (!isOver(record))
            void this.#follow(record.id);
    }
    #update(record) {
        this.#open = record;
        this.#batches = this.#batches.map((batch) => (batch.id === record.id ? record : batch));
        this.#drawBatch();
    }
    /** Asks again for the record whenever something has happened to it, but not all the time. */
    async #follow(id) {
        const following = new AbortController();
        this.#following = following;
        let last = "0";
        let asking = false;
        let stale = false;
        const ask = async () => {
            stale = true;
            if (asking)
                return;
            asking = true;
            while (stale && !following.signal.aborted) {
                stale = false;
                const record = await api.batch(id).catch(() => null);
                if (record && this.#open?.id === id && !following.signal.aborted)
                    this.#update(record);
                await wait(150);
            }
            asking = false;
        };
        while (!following.signal.aborted && this.#open && !isOver(this.#open)) {
            const parser = new EventParser();
            await read(`api/v1/batches/${encodeURIComponent(id)}/events`, { "Last-Event-ID": last }, following.signal, (text) => {
                for (const event of parser.push(text)) {
                    last = event.id;
                    void ask();
                }
            });
            await ask();
            if (this.#open && !isOver(this.#open))
                await wait(AGAIN);
        }
        void this.refresh();
    }
    #drawList() {
        const focused = document.activeElement?.dataset.key;
        find("batch-list").replaceChildren(...this.#batches.map((batch) => {
            const isCurrent = batch.id === this.#open?.id;
            const row = make("button", { type: "button", class: "open", onclick: () => void this.#choose(batch.id) }, make("span", { class: `dot ${batch.state}` }), make("span", { class: "name" }, nameOf(batch)), make("span", { class: "detail" }, `${batch.state} · ${over(batch)} of ${batch.counts.total} · ${ago(batch.created)}`), bar(batch));
            row.dataset.key = batch.id;
            if (isCurrent)
                row.setAttribute("aria-current", "true");
            return make("li", { class: isCurrent ? "current" : "" }, row);
        }));
        find("no-batches").hidden = this.#batches.length > 0 || this.#problem !== "";
        find("batches-problem").textContent = this.#problem;
        find("more-batches").hidden = this.#cursor === null;
        if (focused)
            document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    }
    #drawBatch() {
        const batch = this.#open;
        if (!batch || this.#drawing)
            return;
        // Many steps change at the same moment; once a frame is enough.
        this.#drawing = true;
        requestAnimationFrame(() => {
            this.#drawing = false;
            if (this.#open)
                this.#draw(this.#open);
            this.#drawList();
        });
    }
    #draw(batch) {
        const ended = isOver(batch);
        find("batch").hidden = false;
        find("batch-name").textContent = nameOf(batch);
        const words = [batch.state, ended && batch.exitCode !== 0 && `exit code ${batch.exitCode}`, batch.started && inWords(batch.duration)];
        find("batch-state").textContent = words.filter(Boolean).join(" · ");
        find("batch-bar").replaceChildren(bar(batch));
        find("batch-counts").textContent = Object.entries(batch.counts)
            .filter(([state, count]) => state !== "total" && count > 0)
            .map(([state, count]) => `${count} ${state}`)
            .join(", ");
        find("cancel-batch").hidden = ended;
        find("rerun-all").hidden = !ended;
        find("rerun-failed").hidden = !ended || batch.state === "succeeded";
        const focused = document.activeElement?.dataset.key;
        const previous = (place) => batch.steps[place - 1]?.id;
        find("steps").replaceChildren(...batch.steps.map((step, place) => {
            const needs = step.dependsOn.filter((id) => id !== previous(place));
            const details = [
                step.state,
                step.attempt > 1 && `run ${step.attempt}`,
                step.exitCode !== null && step.state !== "succeeded" && `code ${step.exitCode}`,
                step.signal,
                step.error ?? (["skipped", "failed"].includes(step.state) && step.reason !== "exited" && step.reason),
                step.duration !== null && inWords(step.duration),
                needs.length > 0 && `after ${needs.join(", ")}`,
                place > 0 && step.dependsOn.length === 0 && "at once",
            ].filter(Boolean);
            const row = make("button", { type: "button", class: "open", onclick: () => void this.#read(step.id) }, make("span", { class: `dot ${step.state}` }), make("span", { class: "name" }, step.id === String(place + 1) ? "" : make("strong", {}, `${step.id} `), make("code", {}, step.command)), make("span", { class: "detail" }, details.join(" · ")));
            row.dataset.key = `${batch.id} ${step.id}`;
            if (step.id === this.#step)
                row.setAttribute("aria-current", "true");
            return make("li", { class: step.id === this.#step ? "current" : "" }, row);
        }));
        if (focused)
            document.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
        const shown = batch.steps.find((step) => step.id === this.#step);
        if (shown)
            find("output-of").textContent = outputOf(shown);
    }
    /** Shows what a step prints, as it comes. */
    async #read(id) {
        const batch = this.#open;
        if (!batch)
            return;
        this.#reading?.abort();
        const reading = new AbortController();
        this.#reading = reading;
        this.#step = id;
        this.#draw(batch);
        find("batch-output").hidden = false;
        const places = { stdout: find("step-stdout"), stderr: find("step-stderr") };
        const streams = ["stdout", "stderr"].map((stream) => {
            const place = places[stream];
            place.textContent = "";
            place.hidden = true;
            const path = `api/v1/batches/${encodeURIComponent(batch.id)}/steps/${encodeURIComponent(id)}/${stream}?follow=true`;
            return read(path, {}, reading.signal, (text) => {
                if (reading.signal.aborted)
                    return;
                const isAtEnd = place.scrollTop + place.clientHeight >= place.scrollHeight - 8;
                place.hidden = false;
                place.textContent = ((place.textContent ?? "") + text).slice(-MOST_SHOWN);
                if (isAtEnd)
                    place.scrollTop = place.scrollHeight;
            });
        });
        const done = await Promise.all(streams);
        if (!reading.signal.aborted && done.includes(false))
            say("The output can't be had at the moment.", "error");
    }
}
function nameOf(batch) {
    return batch.name ?? `batch ${batch.id.slice(-6)}`;
}
function isOver(batch) {
    return batch.state !== "queued" && batch.state !== "running";
}
function over({ counts }) {
    return counts.succeeded + counts.failed + counts.skipped + counts.cancelled;
}
/** How far it has come: what went well, what did not, what runs. */
function bar(batch) {
    const { counts } = batch;
    const parts = [
        ["good", counts.succeeded],
        ["bad", counts.failed + counts.cancelled],
        ["left", counts.skipped],
        ["busy", counts.running + counts.retrying],
    ];
    const element = make("span", { class: "bar", role: "progressbar", label: "Steps that are over" }, ...parts.map(([kind, count]) => {
        const part = make("span", { class: kind });
        part.style.width = `${(100 * count) / Math.max(counts.total, 1)}%`;
        return part;
    }));
    element.setAttribute("aria-valuemax", String(counts.total));
    element.setAttribute("aria-valuenow", String(over(batch)));
    return element;
}
function outputOf(step) {
    const nothing = step.stdoutBytes + step.stderrBytes === 0;
    const ended = !["queued", "running", "retrying"].includes(step.state);
    const cut = step.stdoutTruncated || step.stderrTruncated ? " A part in the middle was not kept." : "";
    if (nothing && step.state === "skipped")
        return `Step ${step.id} was left out: ${step.reason ?? ""}.`;
    if (nothing && ended)
        return `Step ${step.id} printed nothing.`;
    return `What step ${step.id} ${ended ? "printed" : "prints"}.${cut}`;
}
export function inWords(millis) {
    if (millis < 1000)
        return `${millis} ms`;
    if (millis < 60_000)
        return `${(millis / 1000).toFixed(1)} s`;
    const minutes = Math.floor(millis / 60_000);
    return minutes < 60 ? `${minutes} min ${Math.floor((millis % 60_000) / 1000)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
function wait(millis) {
    return new Promise((resolve) => setTimeout(resolve, millis));
}
