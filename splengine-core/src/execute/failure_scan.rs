//! Detection of failures, by its output, of a program that exited with 0.

use regex::bytes::Regex;

use crate::execute::Stream;

/// Looks at each line of a run's output while it passes.
///
/// Of a line, the first 4 KiB are looked at: no more is held, however long a line is.
#[derive(Debug)]
pub(crate) struct FailureScan {
    patterns: [Option<Regex>; 2],
    lines: [Vec<u8>; 2],
    found: bool,
}

impl FailureScan {
    pub(crate) fn new(stdout: Option<Regex>, stderr: Option<Regex>) -> Option<Self> {
        let wanted = stdout.is_some() || stderr.is_some();
        wanted.then_some(Self {
            patterns: [stdout, stderr],
            lines: [Vec::new(), Vec::new()],
            found: false,
        })
    }

    pub(crate) fn look(&mut self, stream: Stream, data: &[u8]) {
        let (Some(pattern), false) = (&self.patterns[stream as usize], self.found) else {
            return;
        };
        let line = &mut self.lines[stream as usize];
        let mut parts = data.split(|byte| *byte == b'\n');
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            append(line, part);
            self.found |= pattern.is_match(line);
            line.clear();
        }
        append(line, last);
    }

    /// Whether any line matched, the last ones without a line end included.
    pub(crate) fn found(&self) -> bool {
        self.found
            || self.patterns.iter().zip(&self.lines).any(|(pattern, line)| {
                !line.is_empty() && pattern.as_ref().is_some_and(|pattern| pattern.is_match(line))
            })
    }
}

fn append(line: &mut Vec<u8>, part: &[u8]) {
    let room = LINE_LOOKED_AT - line.len().min(LINE_LOOKED_AT);
    line.extend_from_slice(&part[..part.len().min(room)]);
}

const LINE_LOOKED_AT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(pieces: &[&str]) -> bool {
        let pattern = Regex::new("^Command completed with errors").expect("valid");
        let mut scan = FailureScan::new(Some(pattern), None).expect("has a pattern");
        for piece in pieces {
            scan.look(Stream::Stdout, piece.as_bytes());
            scan.look(Stream::Stderr, piece.as_bytes());
        }
        scan.found()
    }

    #[test]
    fn a_line_is_found_however_it_is_cut() {
        assert!(scan(&["a\nCommand completed with errors ( 3 ms ).\n"]));
        assert!(scan(&["a\nCommand comp", "leted with errors"]));
        assert!(!scan(&["a Command completed with errors\n"]));
        assert!(!scan(&["Command completed\n with errors\n"]));
    }

    #[test]
    fn a_line_without_end_is_not_held() {
        let mut scan =
            FailureScan::new(Some(Regex::new("b").expect("valid")), None).expect("has one");
        for _ in 0..100 {
            scan.look(Stream::Stdout, &[b'a'; 1000]);
        }
        assert_eq!(scan.lines[0].len(), LINE_LOOKED_AT);
    }
}
