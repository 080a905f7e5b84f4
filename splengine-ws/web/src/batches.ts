// The view of batches: which there are, how far each has come, and what its steps print.

import { setBatch, writeAddress } from "./address.js";
import { api, type Batch, type BatchRecord } from "./api.js";
import { detailsOf, inSeconds, inWords, isOver, nameOf, outputOf, over, serverTime, stepsOf } from "./batch_words.js";
import { attempt, confirmed, dialog, field, say } from "./dialogs.js";
import { ago, find, make } from "./dom.js";
import { EventParser, read } from "./events.js";
import { StepStream } from "./step_output.js";
import { isShown, register } from "./views.js";

const EVERY = 3000;
const AGAIN = 2000;
const TICK = 1000;

export class Batches {
  #batches: Batch[] = [];
  #cursor: string | null = null;
  #problem = "";
  #open: BatchRecord | null = null;
  /** When the record came. */
  #received = 0;
  #following: AbortController | null = null;
  #reading: AbortController | null = null;
  #step: string | null = null;
  #drawing = false;
  #streams = { stdout: new StepStream("out", "step-stdout"), stderr: new StepStream("err", "step-stderr") };

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
      if (!document.hidden && isShown("batches")) void this.refresh();
    }, EVERY);
    setInterval(() => {
      if (!document.hidden && isShown("batches")) this.#tick();
    }, TICK);
  }

  /** Opens the batch of an address. */
  async open(id: string): Promise<void> {
    const record = await attempt(() => api.batch(id));
    if (record) this.#show(record);
  }

  async refresh(): Promise<void> {
    try {
      const page = await api.batches(null);
      // Pages that were asked for stay, with what is new in front.
      const ids = new Set(page.batches.map((batch) => batch.id));
      const older = this.#cursor === null && this.#batches.length === 0 ? [] : this.#batches.filter((batch) => !ids.has(batch.id) && batch.id < (page.batches.at(-1)?.id ?? ""));
      if (older.length === 0) this.#cursor = page.cursor;
      this.#batches = [...page.batches, ...older];
      this.#problem = "";
    } catch (error) {
      this.#problem = error instanceof Error ? error.message : String(error);
    }
    this.#drawList();
  }

  async submit(): Promise<void> {
    const lines = make("textarea", { placeholder: "make clean\nmake all\nsh -c 'make test > report.txt'", required: true });
    lines.rows = 8;
    lines.spellcheck = false;
    const name = make("input", { type: "text", autocomplete: "off", placeholder: "optional" });
    const parallel = make("input", { type: "checkbox" });
    const most = make("input", { type: "number", value: "2", disabled: true });
    [most.min, most.max] = ["1", "1000"];
    parallel.addEventListener("change", () => (most.disabled = !parallel.checked));
    const batch = await dialog(
      "New batch",
      [
        field("Commands, one per line", lines),
        make("p", { class: "hint" }, "Commands run without a shell: |, >, && and ; are refused, $NAME stays as it is, and cd is not a command. Where you need them, write sh -c '…'. Lines that begin with # are left out."),
        field("Name", name),
        make("label", { class: "check" }, parallel, make("span", {}, "Run in parallel, in any order; at most at the same time:"), most),
      ],
      { label: "Run batch" },
      () => {
        const commands = lines.value.split("\n").map((line) => line.trim()).filter((line) => line !== "" && !line.startsWith("#"));
        return api.submitBatch({
          ...(name.value.trim() && { name: name.value.trim() }),
          ...(parallel.checked && { parallelism: Number(most.value) }),
          steps: commands.map((command) => (parallel.checked ? { command, dependsOn: [] } : { command })),
        });
      },
    );
    if (batch) this.#show(batch);
    await this.refresh();
  }

  async #more(): Promise<void> {
    const page = await attempt(() => api.batches(this.#cursor));
    if (!page) return;
    this.#batches.push(...page.batches);
    this.#cursor = page.cursor;
    this.#drawList();
  }

  async #cancel(): Promise<void> {
    const batch = this.#open;
    if (!batch || !(await confirmed("Cancel this batch?", "Running steps are stopped, and steps that wait are not run.", "Cancel batch", "Keep running"))) return;
    const record = await attempt(() => api.cancelBatch(batch.id));
    if (record && this.#open?.id === record.id) this.#update(record);
    await this.refresh();
  }

  async #rerun(onlyFailed: boolean): Promise<void> {
    const batch = this.#open;
    const again = batch && (await attempt(() => api.rerunBatch(batch.id, onlyFailed)));
    if (again) {
      this.#show(again);
      say(onlyFailed ? "The steps that did not succeed run again, as a new batch." : "All steps run again, as a new batch.");
    }
    await this.refresh();
  }

  #show(record: BatchRecord): void {
    this.#following?.abort();
    this.#reading?.abort();
    this.#step = null;
    this.#open = record;
    setBatch(record.id);
    if (isShown("batches")) writeAddress("batches");
    find("batch-output").hidden = true;
    this.#update(record);
    this.#drawList();
    if (!isOver(record)) void this.#follow(record.id);
  }

  #update(record: BatchRecord): void {
    this.#open = record;
    this.#received = Date.now();
    this.#batches = this.#batches.map((batch) => (batch.id === record.id ? record : batch));
    this.#drawBatch();
  }

  /** Asks again for the record whenever something has happened to it, but not all the time. */
  async #follow(id: string): Promise<void> {
    const following = new AbortController();
    this.#following = following;
    let last = "0";
    let asking = false;
    let stale = false;
    const ask = async () => {
      stale = true;
      if (asking) return;
      asking = true;
      while (stale && !following.signal.aborted) {
        stale = false;
        const record = await api.batch(id).catch(() => null);
        if (record && this.#open?.id === id && !following.signal.aborted) this.#update(record);
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
      if (this.#open && !isOver(this.#open)) await wait(AGAIN);
    }
    void this.refresh();
  }

  #drawList(): void {
    const focused = (document.activeElement as HTMLElement | null)?.dataset.key;
    find("batch-list").replaceChildren(
      ...this.#batches.map((batch) => {
        const isCurrent = batch.id === this.#open?.id;
        const row = make(
          "button",
          { type: "button", class: "open", onclick: () => void this.open(batch.id) },
          make("span", { class: `dot ${batch.state}` }),
          make("span", { class: "name" }, nameOf(batch)),
          make("span", { class: "detail" }, `${batch.state} · ${stepsOf(batch)} · ${ago(batch.created)}`),
          bar(batch),
        );
        row.dataset.key = batch.id;
        if (isCurrent) row.setAttribute("aria-current", "true");
        return make("li", { class: isCurrent ? "current" : "" }, row);
      }),
    );
    const isEmpty = this.#batches.length === 0 && this.#problem === "";
    find("no-batches").hidden = this.#open !== null || this.#problem !== "";
    find("no-batches-text").textContent = isEmpty ? "There are no batches yet." : "Choose one from the list to see its steps.";
    find("batches-problem").textContent = this.#problem;
    find("more-batches").hidden = this.#cursor === null;
    if (focused) document.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  #drawBatch(): void {
    const batch = this.#open;
    if (!batch || this.#drawing) return;
    // Many steps change at the same moment; once a frame is enough.
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      if (this.#open) this.#draw(this.#open);
      this.#drawList();
    });
  }

  #draw(batch: BatchRecord): void {
    const ended = isOver(batch);
    find("batch").hidden = false;
    find("batch-name").textContent = nameOf(batch);
    find("batch-state").textContent = this.#stateOf(batch);
    find("batch-bar").replaceChildren(bar(batch));
    find("batch-counts").textContent = Object.entries(batch.counts)
      .filter(([state, count]) => state !== "total" && count > 0)
      .map(([state, count]) => `${count} ${state}`)
      .join(", ");
    find("cancel-batch").hidden = ended;
    find("rerun-all").hidden = !ended;
    find("rerun-failed").hidden = !ended || batch.state === "succeeded";
    const focused = (document.activeElement as HTMLElement | null)?.dataset.key;
    find("steps").replaceChildren(
      ...batch.steps.map((step, place) => {
        const row = make(
          "button",
          { type: "button", class: "open", onclick: () => void this.#read(step.id) },
          make("span", { class: `dot ${step.state}` }),
          make("span", { class: "name" }, make("strong", {}, `${step.id} `), make("code", {}, step.command)),
          make("span", { class: "detail" }, detailsOf(step, place, batch.steps, this.#elapsed(batch, step.started))),
        );
        row.dataset.key = `${batch.id} ${step.id}`;
        if (step.id === this.#step) row.setAttribute("aria-current", "true");
        return make("li", { class: step.id === this.#step ? "current" : "" }, row);
      }),
    );
    if (focused) document.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    const shown = batch.steps.find((step) => step.id === this.#step);
    if (shown) find("output-of").textContent = outputOf(shown);
  }

  #stateOf(batch: BatchRecord): string {
    const ended = isOver(batch);
    const now = serverTime(batch, this.#received, Date.now());
    const time = batch.started && (ended ? inWords(batch.duration) : inSeconds(now - Date.parse(batch.started)));
    return [batch.state, ended && batch.exitCode !== 0 && `exit code ${batch.exitCode}`, time].filter(Boolean).join(" · ");
  }

  /** How long what was `started` has been running, in whole seconds. */
  #elapsed(batch: BatchRecord, started: string | null): number | null {
    if (started === null) return null;
    const elapsed = serverTime(batch, this.#received, Date.now()) - Date.parse(started);
    return Math.max(Math.floor(elapsed / 1000) * 1000, 0);
  }

  /** Time goes on without events. */
  #tick(): void {
    const batch = this.#open;
    if (!batch || isOver(batch)) return;
    find("batch-state").textContent = this.#stateOf(batch);
    batch.steps.forEach((step, place) => {
      if (step.state !== "running") return;
      const detail = document.querySelector(`#steps [data-key="${CSS.escape(`${batch.id} ${step.id}`)}"] .detail`);
      if (detail) detail.textContent = detailsOf(step, place, batch.steps, this.#elapsed(batch, step.started));
    });
  }

  /** Shows what a step prints, as it comes. */
  async #read(id: string): Promise<void> {
    const batch = this.#open;
    if (!batch) return;
    this.#reading?.abort();
    const reading = new AbortController();
    this.#reading = reading;
    this.#step = id;
    this.#draw(batch);
    find("batch-output").hidden = false;
    const streams = (["stdout", "stderr"] as const).map((stream) => {
      const place = this.#streams[stream];
      const all = api.output(batch.id, id, stream);
      place.begin(all, `${nameOf(batch)}-${id}-${stream}.txt`);
      return read(`${all}?follow=true`, {}, reading.signal, (text) => {
        if (!reading.signal.aborted) place.push(text);
      });
    });
    const done = await Promise.all(streams);
    if (!reading.signal.aborted && done.includes(false)) say("The output can't be read at the moment.", "error");
  }
}

/** How far it has come: what went well, what did not, what runs. */
function bar(batch: Batch): HTMLElement {
  const { counts } = batch;
  const parts = [
    ["good", counts.succeeded],
    ["bad", counts.failed],
    ["left", counts.cancelled + counts.skipped],
    ["busy", counts.running + counts.retrying],
  ] as const;
  const element = make(
    "span",
    { class: "bar", role: "progressbar", label: "Finished steps" },
    ...parts.map(([kind, count]) => {
      const part = make("span", { class: kind });
      part.style.width = `${(100 * count) / Math.max(counts.total, 1)}%`;
      return part;
    }),
  );
  element.setAttribute("aria-valuemax", String(counts.total));
  element.setAttribute("aria-valuenow", String(over(batch)));
  return element;
}

function wait(millis: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, millis));
}
