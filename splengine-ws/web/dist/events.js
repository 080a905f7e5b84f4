export class EventParser {
    #rest = "";
    push(text) {
        const blocks = (this.#rest + text).split("\n\n");
        this.#rest = blocks.pop() ?? "";
        return blocks.flatMap((block) => {
            const event = { id: "", data: "" };
            for (const line of block.split("\n")) {
                if (line.startsWith("id: "))
                    event.id = line.slice(4);
                if (line.startsWith("data: "))
                    event.data += line.slice(6);
            }
            return event.data === "" ? [] : [event];
        });
    }
}
export async function read(path, headers, signal, piece) {
    try {
        const response = await fetch(new URL(path, document.baseURI), { credentials: "same-origin", headers, signal });
        if (!response.ok || !response.body)
            return false;
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        for (;;) {
            const { done, value } = await reader.read();
            if (done)
                return true;
            piece(value);
        }
    }
    catch {
        return false;
    }
}
