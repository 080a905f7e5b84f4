//! Submits a file of commands, one per line, to a server as a batch, and shows its progress.
//!
//!     TOKEN=… cargo run --example batch -- FILE -a first -a second
//!
//! In the file `$1` to `$9` stand for the arguments, `$@` and `$*` for all of them, but not within
//! single quotes; a line that begins with `#` is a comment. The exit code is that of the first command that
//! failed. The batch continues on the server if this program is ended.

#![expect(clippy::print_stderr, reason = "it speaks to a person")]

use std::error::Error;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Runs a file of commands as a batch.
#[derive(Debug, Parser)]
struct Args {
    /// The file; `-` is standard input
    file: PathBuf,
    /// An argument; can be given several times
    #[arg(short, long = "arg", value_name = "ARG")]
    args: Vec<String>,
    /// Runs so many at once, in no order [default: one after the other, until one fails]
    #[arg(short = 'j', long, value_name = "COUNT")]
    parallel: Option<usize>,
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The token to show it
    #[arg(long, env = "TOKEN", hide_env_values = true, hide = true)]
    token: String,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<i64, Box<dyn Error>> {
    let text = if args.file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(&args.file)
            .map_err(|error| format!("{}: {error}", args.file.display()))?
    };
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let steps: Vec<Value> = lines
        .map(|line| {
            let command = filled_in(line, &args.args);
            match args.parallel {
                Some(_) => json!({"command": command, "dependsOn": []}),
                None => json!({"command": command}),
            }
        })
        .collect();
    let name = args.file.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut batch = json!({"name": name, "steps": steps});
    if let Some(count) = args.parallel {
        batch["parallelism"] = json!(count);
    }
    let server = Server::new(args);
    let record = server.post("/api/v1/batches", &batch)?;
    let place = format!("/api/v1/batches/{}", record["batchId"].as_str().unwrap_or_default());
    let total = steps.len() as u64;
    let style = "{bar:40} {pos}/{len} {wide_msg}";
    let bar = ProgressBar::new(total).with_style(ProgressStyle::with_template(style)?);
    server.follow(&place, &bar)?;
    bar.finish_and_clear();
    server.tell(&place)
}

struct Server<'a> {
    agent: ureq::Agent,
    args: &'a Args,
}

impl<'a> Server<'a> {
    fn new(args: &'a Args) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        Self { agent: config.into(), args }
    }

    fn get(&self, path: &str, after: Option<&str>) -> Result<ureq::Body, Box<dyn Error>> {
        let url = format!("{}{path}", self.args.url.trim_end_matches('/'));
        let mut request = self.agent.get(url).header("authorization", self.credentials());
        if let Some(id) = after {
            request = request.header("last-event-id", id);
        }
        let response = request.call()?;
        let is_good = response.status().is_success();
        let mut body = response.into_body();
        if is_good { Ok(body) } else { Err(problem(&body.read_to_string()?)) }
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, Box<dyn Error>> {
        let url = format!("{}{path}", self.args.url.trim_end_matches('/'));
        let response = self
            .agent
            .post(url)
            .header("authorization", self.credentials())
            .header("content-type", "application/json")
            .send(body.to_string())?;
        let is_good = response.status().is_success();
        let text = response.into_body().read_to_string()?;
        if is_good { Ok(serde_json::from_str(&text)?) } else { Err(problem(&text)) }
    }

    /// Moves the bar with the batch's events. When the server goes away, it waits for it to come
    /// back, and goes on behind the last event.
    fn follow(&self, place: &str, bar: &ProgressBar) -> Result<(), Box<dyn Error>> {
        let mut last = None;
        let mut over = 0;
        for _ in 0..MAX_TRIES {
            let Ok(body) = self.get(&format!("{place}/events"), last.as_deref()) else {
                bar.set_message("waiting for the server");
                std::thread::sleep(std::time::Duration::from_secs(1));
                continue;
            };
            for line in BufReader::new(body.into_reader()).lines() {
                let Ok(line) = line else { break };
                if let Some(id) = line.strip_prefix("id: ") {
                    last = Some(id.to_owned());
                }
                let Some(data) = line.strip_prefix("data: ") else { continue };
                let event: Value = serde_json::from_str(data)?;
                let step = event["step"].as_str().unwrap_or_default().to_owned();
                match (event["event"].as_str(), event["state"].as_str()) {
                    (Some("started"), _) => bar.set_message(format!("step {step}")),
                    (Some("ended"), Some("retrying")) => {}
                    (Some("ended" | "skipped"), _) => {
                        over += 1;
                        bar.set_position(over);
                    }
                    (Some("finished"), _) => return Ok(()),
                    _ => {}
                }
            }
        }
        Err("the server does not come back; the batch goes on when it does".into())
    }

    /// Prints what the steps printed, and gives the batch's exit code.
    fn tell(&self, place: &str) -> Result<i64, Box<dyn Error>> {
        let record: Value = serde_json::from_str(&self.get(place, None)?.read_to_string()?)?;
        for step in record["steps"].as_array().into_iter().flatten() {
            let id = step["id"].as_str().unwrap_or_default();
            for (stream, count) in [("stdout", "stdoutBytes"), ("stderr", "stderrBytes")] {
                if step[count].as_u64().is_none_or(|count| count == 0) {
                    continue;
                }
                let body = self.get(&format!("{place}/steps/{id}/{stream}"), None)?;
                let mut reader = body.into_reader().take(MAX_OUTPUT_BYTES);
                if stream == "stdout" {
                    std::io::copy(&mut reader, &mut std::io::stdout())?;
                } else {
                    std::io::copy(&mut reader, &mut std::io::stderr())?;
                }
            }
            if step["state"] == "failed" {
                let why = step["error"].as_str().or(step["reason"].as_str()).unwrap_or_default();
                eprintln!("step {id} failed with code {}: {why}", step["exitCode"]);
            }
        }
        Ok(record["exitCode"].as_i64().unwrap_or(1))
    }

    fn credentials(&self) -> String {
        format!("Bearer {}", self.args.token)
    }
}

/// A line with the arguments in it, each as one word; as in a shell, not within single quotes.
fn filled_in(line: &str, args: &[String]) -> String {
    let mut filled = String::new();
    let (mut single, mut double) = (false, false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            '\\' if !single => {
                filled.push(letter);
                filled.extend(letters.next());
                continue;
            }
            '$' if !single => {
                let chosen = match letters.peek() {
                    Some('@' | '*') => Some(args),
                    Some(digit @ '1'..='9') => {
                        let place = *digit as usize - '1' as usize;
                        Some(args.get(place..=place).unwrap_or_default())
                    }
                    _ => None,
                };
                if let Some(chosen) = chosen {
                    letters.next();
                    let words: Vec<String> =
                        chosen.iter().map(|word| quoted(word, double)).collect();
                    filled.push_str(&words.join(" "));
                    continue;
                }
            }
            _ => {}
        }
        filled.push(letter);
    }
    filled
}

fn quoted(word: &str, in_double: bool) -> String {
    if in_double {
        word.replace('\\', "\\\\").replace('"', "\\\"")
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn problem(text: &str) -> Box<dyn Error> {
    let problem: Value = serde_json::from_str(text).unwrap_or_default();
    problem["error"].as_str().unwrap_or("the server gave no answer that makes sense").into()
}

const MAX_TRIES: u32 = 3600;
const MAX_OUTPUT_BYTES: u64 = 1 << 30;
