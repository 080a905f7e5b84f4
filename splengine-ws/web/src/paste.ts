// What may be pasted. Nothing here touches the page.

/**
 * The text without what a terminal takes for keys or commands of its own: Escape, the C1 controls,
 * and the other C0 controls but tab, carriage return and line feed. A text that is copied from
 * somewhere can hold them unseen.
 */
export function cleanPaste(text: string): string {
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/g, "");
}
