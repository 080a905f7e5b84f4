//! Examples in documentation.

/// Counts the code blocks of some Markdown that are compiled as Rust.
#[must_use]
pub fn compiling_examples(docs: &str) -> usize {
    let (mut count, mut fence) = (0, None);
    for line in docs.lines() {
        let line = line.trim_start();
        let length = line.len() - line.trim_start_matches('`').len();
        match fence {
            None if length >= 3 => {
                fence = Some(length);
                count += usize::from(compiles(&line[length..]));
            }
            Some(open) if length >= open && line[length..].trim().is_empty() => fence = None,
            _ => {}
        }
    }
    count
}

fn compiles(info: &str) -> bool {
    info.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty()).all(|word| {
        matches!(word, "rust" | "no_run" | "should_panic") || word.starts_with("edition")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_rust_are_counted() {
        let docs = "A.\n\n```\nf();\n```\n```no_run\n```\n````rust,should_panic\n```\n````\n";
        assert_eq!(compiling_examples(docs), 3);
    }

    #[test]
    fn blocks_that_are_not_compiled_are_not() {
        let docs = "```text\n```\n```ignore\n```\n```console\n```\n```rust,ignore\n```\n\
                    ```compile_fail\n```\n`x`\n";
        assert_eq!(compiling_examples(docs), 0);
    }
}
