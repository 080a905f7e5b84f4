// xterm.js and its addons are loaded before, by a script of the build, which leaves these behind.

declare const Terminal: typeof import("@xterm/xterm").Terminal;
declare const FitAddon: { FitAddon: typeof import("@xterm/addon-fit").FitAddon };
declare const Unicode11Addon: { Unicode11Addon: typeof import("@xterm/addon-unicode11").Unicode11Addon };
declare const WebLinksAddon: { WebLinksAddon: typeof import("@xterm/addon-web-links").WebLinksAddon };
declare const loadSearch: () => Promise<{ SearchAddon: typeof import("@xterm/addon-search").SearchAddon }>;
declare const loadWebgl: () => Promise<{ WebglAddon: typeof import("@xterm/addon-webgl").WebglAddon }>;
