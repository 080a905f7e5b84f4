const JOINED = /\p{RI}\p{RI}|\p{Extended_Pictographic}\ufe0f?[\u{1f3fb}-\u{1f3ff}]?(?:\u200d\p{Extended_Pictographic}\ufe0f?[\u{1f3fb}-\u{1f3ff}]?)*/gu;
export function joinedRanges(text) {
    const ranges = [];
    for (const match of text.matchAll(JOINED)) {
        const [found] = match;
        if ([...found].length > 1)
            ranges.push([match.index, match.index + found.length]);
    }
    return ranges;
}
