import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const read = (path) => readFileSync(new URL(`../${path}`, import.meta.url));
const vendor = JSON.parse(read("vendor.json"));
const lock = JSON.parse(read("package-lock.json")).packages;
const hash = (kind, content, form) => createHash(kind).update(content).digest(form);

test("the list of what is embedded is what the lock file installs", () => {
  for (const { name, package: from, version, file, sha256, integrity } of vendor.files) {
    const content = read(`node_modules/${from}/${file}`);
    assert.equal(lock[`node_modules/${from}`].version, version, name);
    assert.equal(hash("sha256", content, "hex"), sha256, name);
    assert.equal(`sha384-${hash("sha384", content, "base64")}`, integrity, name);
  }
});

test("every package comes with its licence", () => {
  for (const { package: from } of vendor.files) {
    assert.ok(vendor.files.some((file) => file.package === from && file.file === "LICENSE"), from);
  }
});
