//! Puts the web console into the crate: our own files, and xterm.js from its npm packages, whose
//! versions the lock file pins and whose contents `web/vendor.json` does.
//!
//! The packages are taken from `web/node_modules`, or installed by npm into the build's own folder.
//! Where neither can be, the build succeeds all the same, and the page loads the same files from a
//! CDN, by their integrity hashes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let web = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("web");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for watched in
        ["dist", "index.html", "console.css", "icon.svg", "vendor.json", "package-lock.json"]
    {
        println!("cargo:rerun-if-changed=web/{watched}");
    }
    println!("cargo:rerun-if-env-changed=SPLENGINE_WS_NO_NPM");

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
    let index = out.join("index.html");
    fs::write(&index, page(&web, &vendor, files, embedded.is_some())?)?;
    assets.push((String::new(), index));
    for name in ["console.css", "icon.svg"] {
        assets.push((name.to_owned(), web.join(name)));
    }
    for entry in fs::read_dir(web.join("dist"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "js") {
            let name = path.file_name().ok_or("a file has a name")?;
            assets.push((name.to_string_lossy().into_owned(), path));
        }
    }
    assets.extend(embedded.into_iter().flatten());
    assets.sort();
    fs::write(out.join("assets.rs"), table(&assets)?)?;
    let cdn = vendor["cdn"].as_str().unwrap_or_default();
    let cdn = if assets.iter().any(|(name, _)| name.starts_with("vendor/")) { "" } else { cdn };
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
    if env::var_os("SPLENGINE_WS_NO_NPM").is_some_and(|value| value != "0") {
        return Err("npm is not to be used".into());
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

fn page(web: &Path, vendor: &Value, files: &[Value], embedded: bool) -> Result<String> {
    let mut tags = String::new();
    for file in files {
        let text = |name: &str| file[name].as_str().unwrap_or_default();
        let name = text("name");
        let (address, guard) = if embedded {
            (format!("vendor/{name}"), String::new())
        } else {
            let cdn = vendor["cdn"].as_str().unwrap_or_default();
            let address = format!("{cdn}/{}@{}/{}", text("package"), text("version"), text("file"));
            (address, format!(" integrity=\"{}\" crossorigin=\"anonymous\"", text("integrity")))
        };
        if name.ends_with(".css") {
            writeln!(tags, "<link rel=\"stylesheet\" href=\"{address}\"{guard} />")?;
        } else if name.ends_with(".txt") {
            let package = text("package");
            writeln!(tags, "<link rel=\"license\" href=\"{address}\" title=\"{package}\" />")?;
        } else {
            writeln!(tags, "<script defer src=\"{address}\"{guard}></script>")?;
        }
    }
    Ok(fs::read_to_string(web.join("index.html"))?.replace("<!--vendor-->", tags.trim_end()))
}

fn table(assets: &[(String, PathBuf)]) -> Result<String> {
    let mut code = String::from("&[\n");
    for (name, path) in assets {
        let tag = hex(&Sha256::digest(fs::read(path)?));
        let path = path.to_str().ok_or("the path of the build is not UTF-8")?;
        writeln!(code, "({name:?}, include_bytes!({path:?}), \"\\\"{}\\\"\"),", &tag[..32])?;
    }
    code.push(']');
    Ok(code)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
