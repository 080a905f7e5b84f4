// Making parts of the page. Text is always text, never markup.

type Child = Node | string | null | false;

type Properties = {
  class?: string;
  title?: string;
  label?: string;
  type?: string;
  name?: string;
  value?: string;
  placeholder?: string;
  href?: string;
  download?: string;
  role?: string;
  disabled?: boolean;
  hidden?: boolean;
  checked?: boolean;
  required?: boolean;
  readOnly?: boolean;
  autocomplete?: string;
  onclick?: (event: MouseEvent) => void;
  onsubmit?: (event: SubmitEvent) => void;
  onchange?: (event: Event) => void;
};

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  const { class: classes, label, role, ...rest } = properties;
  if (classes) element.className = classes;
  if (label) element.setAttribute("aria-label", label);
  if (role) element.setAttribute("role", role);
  Object.assign(element, rest);
  element.append(...children.filter((child): child is Node | string => child !== null && child !== false));
  return element;
}

export function find<T extends HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page lacks #${id}`);
  return element as T;
}

/** How long ago, in few words. */
export function ago(time: string, now: number = Date.now()): string {
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (seconds < 10) return "now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}
