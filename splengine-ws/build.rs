//! Puts the web console into the crate: our own files, and xterm.js from its npm packages, whose
//! versions the lock file pins and whose contents `web/vendor.json` does.
//!
//! The packages are taken from `web/node_modules`, or installed by npm into the build's own folder: in
//! the repository, unless `SPLENGINE_WS_NO_NPM` is set; of the published crate only where `SPLENGINE_WS_NPM`
//! asks for it, since nobody expects a dependency to use the network. Where neither can be, the build
//! succeeds all the same, and the page loads the same files from a CDN, by their integrity hashes.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

#[path = "build/bundle.rs"]
mod bundle;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const NO_NPM: &str = "SPLENGINE_WS_NO_NPM";
const NPM: &str = "SPLENGINE_WS_NPM";

fn main() -> Result<()> {
    let web = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("web");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for watched in
        ["dist", "index.html", "console.css", "icon.svg", "vendor.json", "package-lock.json"]
    {
        println!("cargo:rerun-if-changed=web/{watched}");
    }
    for variable in [NO_NPM, NPM] {
        println!("cargo:rerun-if-env-changed={variable}");
    }

    let vendor: Value = serde_json::from_slice(&fs::read(web.join("vendor.json"))?)?;
    let files = vendor["files"].as_array().ok_or("vendor.json has no files")?;
    let embedded = match embed(&web, &out, files) {
        Ok(embedded) => Some(embedded),
        Err(error) => {
            println!("cargo:warning=the console will load xterm.js from a CDN: {error}");
            None
        }
    };

    let mut assets = Vec::new();
    for name in ["console.css", "icon.svg"] {
        assets.push((name.to_owned(), web.join(name)));
    }
    let main = out.join("main.js");
    fs::write(&main, bundle::bundle(&web.join("dist"), "main.js")?)?;
    assets.push(("main.js".to_owned(), main));
    let globals = out.join("vendor.js");
    fs::write(&globals, globals_of(&vendor, files, embedded.is_some()))?;
    assets.push(("vendor.js".to_owned(), globals));
    let is_embedded = embedded.is_some();
    assets.extend(embedded.into_iter().flatten());
    assets.sort();

    // One directory for all of a version: whatever is in it can be kept for ever.
    let mut hash = Sha256::new();
    for (name, path) in &assets {
        hash.update(name);
        hash.update(fs::read(path)?);
    }
    let base = format!("assets/{}/", &hex(&hash.finalize())[..16]);
    let index = out.join("index.html");
    fs::write(&index, page(&web, &vendor, files, &assets, &base, is_embedded)?)?;
    for (name, _) in &mut assets {
        name.insert_str(0, &base);
    }
    assets.push((String::new(), index));
    fs::write(out.join("assets.rs"), table(&assets, &out)?)?;
    let cdn = if is_embedded { "" } else { vendor["cdn"].as_str().unwrap_or_default() };
    let origin: String = cdn.split('/').take(3).collect::<Vec<_>>().join("/");
    println!("cargo:rustc-env=SPLENGINE_CONSOLE_CDN={origin}");
    Ok(())
}

/// The checked files of the packages, by the name under which they are served. What is checked is
/// what is embedded: a copy, which stays when the packages go.
fn embed(web: &Path, out: &Path, files: &[Value]) -> Result<Vec<(String, PathBuf)>> {
    let npm = out.join("npm");
    let contents = match checked(&npm.join("node_modules"), files)
        .or_else(|_| checked(&web.join("node_modules"), files))
    {
        Ok(contents) => contents,
        Err(problem) => {
            install(web, &npm).map_err(|error| format!("{problem}, and {error}"))?;
            checked(&npm.join("node_modules"), files)?
        }
    };
    let vendor = out.join("vendor");
    fs::create_dir_all(&vendor)?;
    let mut embedded = Vec::new();
    for (name, content) in contents {
        let path = vendor.join(name);
        fs::write(&path, content)?;
        embedded.push((format!("vendor/{name}"), path));
    }
    Ok(embedded)
}

/// What the packages hold, if all of it is what `vendor.json` says.
fn checked<'a>(modules: &Path, files: &'a [Value]) -> Result<Vec<(&'a str, Vec<u8>)>> {
    let check = |file: &'a Value| {
        let text = |name: &str| {
            file[name].as_str().ok_or_else(|| format!("vendor.json lacks the {name} of a file"))
        };
        let path = modules.join(text("package")?).join(text("file")?);
        let content = fs::read(&path)
            .map_err(|error| format!("{} can't be read: {error}", path.display()))?;
        if hex(&Sha256::digest(&content)) != text("sha256")? {
            return Err(format!("{} is not what vendor.json says", path.display()).into());
        }
        Ok((text("name")?, content))
    };
    files.iter().map(check).collect()
}

/// In a folder of its own: the sources of a crate may be read-only.
fn install(web: &Path, into: &Path) -> Result<()> {
    let is_set = |name| env::var_os(name).is_some_and(|value| value != "0");
    // What cargo puts into each package, and nobody else.
    let is_published = web.with_file_name("Cargo.toml.orig").exists();
    if is_set(NO_NPM) {
        return Err(format!("{NO_NPM} is set").into());
    }
    if is_published && !is_set(NPM) {
        return Err(format!("npm is used if {NPM}=1 asks for it").into());
    }
    fs::create_dir_all(into)?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(web.join(name), into.join(name))?;
    }
    // Without a network, the build is not to hang.
    let arguments = [
        "ci",
        "--ignore-scripts",
        "--omit=dev",
        "--no-audit",
        "--no-fund",
        "--fetch-retries=1",
        "--fetch-timeout=30000",
    ];
    let status = Command::new("npm")
        .args(arguments)
        .current_dir(into)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| format!("npm can't be run: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("npm ci failed: {status}").into()) }
}

/// Where a file of the packages is loaded from, seen from the page's own scripts.
fn address(vendor: &Value, file: &Value, embedded: bool) -> String {
    let text = |name: &str| file[name].as_str().unwrap_or_default();
    if embedded {
        return format!("./vendor/{}", text("name"));
    }
    let cdn = vendor["cdn"].as_str().unwrap_or_default();
    format!("{cdn}/{}@{}/{}", text("package"), text("version"), text("file"))
}

/// A script that makes what the packages export known to the console's, under names of its own.
fn globals_of(vendor: &Value, files: &[Value], embedded: bool) -> String {
    let (mut imports, mut members) = (String::new(), String::new());
    for file in files {
        let Some(export) = file["exports"].as_str() else { continue };
        let from = address(vendor, file, embedded);
        match file["lazy"].as_str() {
            Some(loader) => members += &format!("  {loader}: () => import({from:?}),\n"),
            None => {
                imports += &format!("import {{ {export} }} from {from:?};\n");
                let value = if export == "Terminal" { "" } else { &format!(": {{ {export} }}") };
                members += &format!("  {export}{value},\n");
            }
        }
    }
    format!("{imports}Object.assign(globalThis, {{\n{members}}});\n")
}

/// The page, which loads everything at once: what its scripts import, too, but for what they import
/// later.
fn page(
    web: &Path,
    vendor: &Value,
    files: &[Value],
    assets: &[(String, PathBuf)],
    base: &str,
    embedded: bool,
) -> Result<String> {
    let mut tags = String::new();
    // First what asks the server, which answers while the rest is on its way.
    for (name, _) in assets.iter().filter(|(name, _)| name.ends_with(".js")) {
        writeln!(tags, "<link rel=\"modulepreload\" href=\"{base}{name}\" />")?;
    }
    for file in files {
        let text = |name: &str| file[name].as_str().unwrap_or_default();
        let (name, package) = (text("name"), text("package"));
        let address = address(vendor, file, embedded);
        let address =
            address.strip_prefix("./").map_or(address.clone(), |own| format!("{base}{own}"));
        let guard = match embedded {
            true => String::new(),
            false => format!(" integrity=\"{}\" crossorigin=\"anonymous\"", text("integrity")),
        };
        if name.ends_with(".css") {
            writeln!(tags, "<link rel=\"stylesheet\" href=\"{address}\"{guard} />")?;
        } else if name.ends_with(".txt") {
            writeln!(tags, "<link rel=\"license\" href=\"{address}\" title=\"{package}\" />")?;
        } else if !embedded {
            // Imported later, it is this one, which was held to its hash.
            writeln!(tags, "<script type=\"module\" src=\"{address}\"{guard}></script>")?;
        } else if file["lazy"].is_null() {
            writeln!(tags, "<link rel=\"modulepreload\" href=\"{address}\" />")?;
        }
    }
    let page = fs::read_to_string(web.join("index.html"))?;
    Ok(page.replace("<!--vendor-->", tags.trim_end()).replace("\"@/", &format!("\"{base}")))
}

/// Each asset with its bytes as they are and compressed.
fn table(assets: &[(String, PathBuf)], out: &Path) -> Result<String> {
    let compressed = out.join("gzip");
    fs::create_dir_all(&compressed)?;
    let mut code = String::from("&[\n");
    for (index, (name, path)) in assets.iter().enumerate() {
        let content = fs::read(path)?;
        let tag = hex(&Sha256::digest(&content));
        let smaller = compressed.join(format!("{index}.gz"));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&content)?;
        fs::write(&smaller, encoder.finish()?)?;
        let utf8 = "the path of the build is not UTF-8";
        let (path, smaller) = (path.to_str().ok_or(utf8)?, smaller.to_str().ok_or(utf8)?);
        writeln!(
            code,
            "Asset {{ name: {name:?}, body: include_bytes!({path:?}), gzip: include_bytes!({smaller:?}), tag: {:?} }},",
            &tag[..32]
        )?;
    }
    code.push(']');
    Ok(code)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
