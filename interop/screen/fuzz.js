// Streams that are nasty on purpose, the same for the same seed.

/** Numbers from 0 to below what is asked for (mulberry32). */
export function random(seed) {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

const words = ["hello", "x", "wörld", "日本語", "e\u0301", "👍", "a b  c", "─│┌", "0123456789", "\u0301"];

export function fuzz(seed) {
  const next = random(seed);
  const pick = (list) => list[next(list.length)];
  const number = () => pick(["", "0", "1", "2", "3", "5", "9", String(next(40)), "999"]);
  const cols = 10 + next(40);
  const rows = 3 + next(12);
  const color = () => pick(["3" + next(8), "4" + next(8), "9" + next(8), `38;5;${next(256)}`, `48;2;${next(256)};1;2`, `38:2::${next(256)}:5:6`]);
  const pieces = [
    () => pick(words).repeat(1 + next(4)),
    () => pick(words) + " " + pick(words),
    () => "x".repeat(next(60)),
    () => pick(["\r\n", "\n", "\r", "\b", "\t", "\x0b", "\r\n\r\n"]),
    () => `\x1b[${number()};${number()}H`,
    () => `\x1b[${number()}${pick([..."ABCDEFGIZdae`"])}`,
    // Not 1J: in the last row xterm.js 6.0 fails at it with an exception.
    () => `\x1b[${pick(["", "0", "2"])}J`,
    () => `\x1b[${pick(["", "0", "1", "2"])}K`,
    () => `\x1b[${number()}${pick([..."LMPX@ST"])}`,
    () => `\x1b[${1 + next(5)}b`,
    () => `\x1b[${pick(["0", "1", "2", "3", "4", "4:3", "5", "7", "8", "9", "21", "22", "24", "27", "53", "39", "49"])}m`,
    () => `\x1b[${color()}m`,
    () => `\x1b[${1 + next(4)};${3 + next(8)}r`,
    () => "\x1b[r",
    () => pick(["\x1b7", "\x1b8", "\x1b[s", "\x1b[u", "\x1bD", "\x1bM", "\x1bE", "\x1bH", "\x1b[g", "\x1b[3g"]),
    () => `\x1b[?${pick(["1", "6", "7", "25", "45", "1000", "1002", "1004", "1006", "2004"])}${pick(["h", "l"])}`,
    () => `\x1b[?${pick(["47", "1047", "1049"])}${pick(["h", "l"])}`,
    () => pick(["\x1b[4h", "\x1b[4l"]),
    () => pick(["\x1b(0", "\x1b(B", "\x1b)0", "\x0e", "\x0f", "\x1b(A"]),
    () => pick(["\x1b]0;title\x07", `\x1b]8;;http://x/${next(3)}\x1b\\`, "\x1b]8;;\x1b\\"]),
    () => pick(["\x1b[2 @", "\x1b[1 A", "\x1b['}", "\x1b[2'~"]),
    () => pick(["\x1b[!p", "\x1b#8", "\x1b[1\"q", "\x1b[0\"q", "\x1b[?J", "\x1b[?K"]),
  ];
  const steps = [];
  const count = 10 + next(50);
  for (let i = 0; i < count; i += 1) steps.push(pieces[Math.min(next(pieces.length + 12), pieces.length + 11) % pieces.length]());
  return { name: `seed ${seed}`, cols, rows, steps: [steps.join("")] };
}
