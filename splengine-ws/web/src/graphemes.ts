// Which characters of a row belong together. Nothing here touches the page.

// Emoji of several parts: joined by U+200D, with a tone of skin, or flags of two letters.
const JOINED = /\p{RI}\p{RI}|\p{Extended_Pictographic}\ufe0f?[\u{1f3fb}-\u{1f3ff}]?(?:\u200d\p{Extended_Pictographic}\ufe0f?[\u{1f3fb}-\u{1f3ff}]?)*/gu;

/**
 * The ranges of `text`, in UTF-16 units, that a font draws as one picture. A renderer that does not
 * know of them lets the browser close the gap, and what follows leaves its column.
 */
export function joinedRanges(text: string): [number, number][] {
  const ranges: [number, number][] = [];
  for (const match of text.matchAll(JOINED)) {
    const [found] = match;
    // A single one is drawn in its own cells anyway.
    if ([...found].length > 1) ranges.push([match.index, match.index + found.length]);
  }
  return ranges;
}
