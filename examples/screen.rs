//! The terminal emulator for other programs: each line of input is a request, and each line of output its answer.
//!
//!     cargo run --example screen
//!     {"cols": 80, "rows": 24, "steps": ["68656c6c6f", [100, 30]]}
//!
//! Steps are bytes in hexadecimal, or a change of size. The answer has the bytes that draw the
//! screen, in hexadecimal, and its text.

use std::io::{BufRead as _, Write as _};

use serde_json::{Value, json};
use splengine_core::screen::Screen;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let number =
            |value: &Value| value.as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(1);
        let scrollback = request["scrollback"].as_u64().unwrap_or(300);
        let mut screen = Screen::new(
            number(&request["cols"]),
            number(&request["rows"]),
            usize::try_from(scrollback)?,
        );
        for step in request["steps"].as_array().into_iter().flatten() {
            match step {
                Value::String(hex) => screen.feed(&from_hex(hex).ok_or("not hexadecimal")?),
                size => screen.resize(number(&size[0]), number(&size[1])),
            }
        }
        let answer = json!({
            "snapshot": to_hex(&screen.snapshot()),
            "replies": to_hex(&screen.take_replies()),
            "text": screen.text(),
            "title": screen.title(),
        });
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let pairs = digits?;
    Some(pairs.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
