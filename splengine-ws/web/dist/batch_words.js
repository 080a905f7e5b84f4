export function nameOf(batch) {
    return batch.name ?? `batch ${batch.id.slice(-6)}`;
}
export function isOver(batch) {
    return batch.state !== "queued" && batch.state !== "running";
}
export function over({ counts }) {
    return counts.succeeded + counts.failed + counts.skipped + counts.cancelled;
}
export function stepsOf(batch) {
    const { total } = batch.counts;
    return `${over(batch)} of ${total} ${total === 1 ? "step" : "steps"}`;
}
const REASONS = {
    signaled: "killed",
    timedOut: "timed out",
    cancelled: "cancelled",
    outOfMemory: "out of memory",
    lost: "lost when the server stopped",
    dependencyFailed: "a step before it failed",
    dependency: "a step before it failed",
    failFast: "another step failed",
    condition: "its condition does not hold",
};
export function reasonInWords(reason) {
    return REASONS[reason] ?? reason.replace(/([a-z])([A-Z])/g, (_, before, letter) => `${before} ${letter.toLowerCase()}`);
}
export function detailsOf(step, place, steps, elapsed) {
    const previous = steps[place - 1]?.id;
    const isDefault = place === 0 ? step.dependsOn.length === 0 : step.dependsOn.length === 1 && step.dependsOn[0] === previous;
    const time = step.duration ?? (step.state === "running" ? elapsed : null);
    return [
        step.state,
        step.attempt > 1 && `attempt ${step.attempt}`,
        step.exitCode !== null && step.state !== "succeeded" && `exit code ${step.exitCode}`,
        step.signal,
        step.error ?? (["skipped", "failed"].includes(step.state) && step.reason && step.reason !== "exited" && reasonInWords(step.reason)),
        time !== null && inWords(time),
        !isDefault && step.dependsOn.length > 0 && `after ${step.dependsOn.join(", ")}`,
        !isDefault && step.dependsOn.length === 0 && "does not wait for others",
    ].filter(Boolean).join(" · ");
}
export function outputOf(step) {
    const nothing = step.stdoutBytes + step.stderrBytes === 0;
    const ended = !["queued", "running", "retrying"].includes(step.state);
    const cut = step.stdoutTruncated || step.stderrTruncated ? " Its output was over the limit: a part in the middle was not kept." : "";
    const name = `Step ${step.id}: ${step.command}`;
    if (nothing && step.state === "skipped")
        return `${name} · skipped: ${reasonInWords(step.reason ?? "")}.`;
    if (nothing && ended)
        return `${name} · no output.`;
    return `${name}${cut === "" ? "" : ` ·${cut}`}`;
}
export function serverTime(batch, received, now) {
    return Date.parse(batch.started ?? batch.created) + batch.duration + (now - received);
}
export function inWords(millis) {
    if (millis < 1000)
        return `${Math.round(millis)} ms`;
    if (millis < 60_000)
        return `${(millis / 1000).toFixed(1)} s`;
    const minutes = Math.floor(millis / 60_000);
    return minutes < 60 ? `${minutes} min ${Math.floor((millis % 60_000) / 1000)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
export function inSeconds(millis) {
    return millis < 60_000 ? `${Math.floor(millis / 1000)} s` : inWords(millis);
}
