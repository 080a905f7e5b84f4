export const MAX_OSC52 = 1024 * 1024;
export function parseOsc52(data) {
    const [where, payload] = data.split(";", 2);
    if (where === undefined || payload === undefined || !/^[cpqs0-7]*$/.test(where))
        return null;
    if (payload === "" || payload === "?" || payload.length > MAX_OSC52)
        return null;
    try {
        const bytes = Uint8Array.from(atob(payload), (char) => char.charCodeAt(0));
        return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    }
    catch {
        return null;
    }
}
