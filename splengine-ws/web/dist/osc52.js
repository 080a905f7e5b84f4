// What programs put into the clipboard (OSC 52). Nothing here touches the page.
/** What a program may copy at once, in characters of its Base64. */
export const MAX_OSC52 = 1024 * 1024;
/**
 * The text that an OSC 52 sets; null when it sets none. Its question for what the clipboard holds is
 * never answered: that is nobody's but the person's.
 */
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
