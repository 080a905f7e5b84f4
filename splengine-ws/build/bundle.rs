//! Puts modules together in one, so that a page loads them with one request.
//!
//! Only what TypeScript makes of the console's own sources is understood: imports by name, from files
//! beside it, each on one line, and exports of declarations. Anything else fails the build.

use std::collections::HashSet;
use std::path::Path;

use super::Result;

/// The module `entry` of a directory with all that it imports, as one module.
pub(crate) fn bundle(directory: &Path, entry: &str) -> Result<String> {
    let mut bundle = Bundle { directory, seen: HashSet::new(), code: String::new() };
    bundle.add(entry)?;
    Ok(bundle.code)
}

struct Bundle<'a> {
    directory: &'a Path,
    seen: HashSet<String>,
    code: String,
}

impl Bundle<'_> {
    /// Adds a module behind those that it imports, in a scope of its own.
    fn add(&mut self, name: &str) -> Result<()> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let source = std::fs::read_to_string(self.directory.join(name))?;
        let (mut body, mut exports) = (String::new(), Vec::new());
        for line in source.lines() {
            let wrong = || format!("{name}: `{line}` is no import or export that is understood");
            if line.starts_with("import ") {
                let (names, from) = import(line).ok_or_else(wrong)?;
                self.add(from)?;
                body += &format!("const {{{}}} = {};\n", names.replace(" as ", ": "), scope(from));
            } else if let Some(declaration) = line.strip_prefix("export ") {
                exports.push(declared(declaration).ok_or_else(wrong)?);
                body += declaration;
                body.push('\n');
            } else {
                body += line;
                body.push('\n');
            }
        }
        let exports = exports.join(", ");
        self.code +=
            &format!("const {} = (() => {{\n{body}return {{ {exports} }};\n}})();\n", scope(name));
        Ok(())
    }
}

/// What `import { … } from "./…";` names, and where it is from.
fn import(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("import {")?.strip_suffix("\";")?;
    rest.split_once("} from \"./")
}

/// The name that a declaration declares.
fn declared(declaration: &str) -> Option<&str> {
    let kinds = ["async function ", "function ", "class ", "const "];
    let rest = kinds.iter().find_map(|kind| declaration.strip_prefix(kind))?;
    rest.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next()
}

/// The name of a module's scope.
fn scope(name: &str) -> String {
    format!("${}", name.trim_end_matches(".js"))
}
