const TAP = 8;
const FRICTION = 0.95;
const MIN_SPEED = 0.02;
export class Lines {
    #rest = 0;
    take(pixels, cell) {
        this.#rest += pixels / Math.max(cell, 1);
        const lines = Math.trunc(this.#rest);
        this.#rest -= lines;
        return lines;
    }
    clear() {
        this.#rest = 0;
    }
}
export function swipeScroll(place, term) {
    const lines = new Lines();
    let last = null;
    let moves = false;
    let speed = 0;
    let glide = 0;
    const scroll = (pixels, at) => {
        const before = place.scrollTop;
        place.scrollTop += pixels;
        const left = pixels - (place.scrollTop - before);
        const cell = (term.element?.querySelector(".xterm-screen")?.clientHeight ?? 0) / term.rows;
        const count = lines.take(left, cell);
        if (count === 0)
            return;
        if (term.buffer.active.type === "normal" && term.modes.mouseTrackingMode === "none")
            return term.scrollLines(count);
        const wheel = { deltaY: count * cell, clientX: at.x, clientY: at.y, bubbles: true, cancelable: true };
        term.element?.querySelector(".xterm-screen")?.dispatchEvent(new WheelEvent("wheel", wheel));
    };
    place.addEventListener("touchstart", (event) => {
        cancelAnimationFrame(glide);
        const touch = event.touches[0];
        last = event.touches.length === 1 && touch ? { x: touch.clientX, y: touch.clientY, time: event.timeStamp } : null;
        moves = false;
        speed = 0;
        lines.clear();
    }, { passive: true });
    place.addEventListener("touchmove", (event) => {
        const touch = event.touches[0];
        if (!last || !touch || event.touches.length !== 1)
            return;
        const now = { x: touch.clientX, y: touch.clientY, time: event.timeStamp };
        const [right, down] = [last.x - now.x, last.y - now.y];
        if (!moves && Math.hypot(right, down) < TAP)
            return;
        moves = true;
        event.preventDefault();
        place.scrollLeft += right;
        scroll(down, now);
        speed = down / Math.max(now.time - last.time, 1);
        last = now;
    }, { passive: false });
    const end = (event) => {
        const from = last;
        last = null;
        if (!from || !moves || event.timeStamp - from.time > 60)
            return;
        const step = () => {
            if (Math.abs(speed) < MIN_SPEED)
                return;
            scroll(speed * 16, from);
            speed *= FRICTION;
            glide = requestAnimationFrame(step);
        };
        glide = requestAnimationFrame(step);
    };
    place.addEventListener("touchend", end, { passive: true });
    place.addEventListener("touchcancel", () => (last = null), { passive: true });
}
