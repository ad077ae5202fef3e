//! The fuzz targets of `tests/fuzz` on stable: each is fed damaged seeds, the same in every run. Templates are rendered by the
//! program's process for that, with its bounds.

use crate::common::deep;
use crate::common::fuzzed;

/// Random numbers (xorshift).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n.max(1)
    }

    /// A seed, damaged in a few places.
    pub(crate) fn damaged(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len());
            let end = (at + 1 + self.below(16)).min(bytes.len());
            match self.below(7) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let twice = bytes[at..end].to_vec();
                    bytes.splice(at..at, twice);
                }
                3 => bytes[at..end].fill([0, 0xff, 0x7f, 1][at % 4]),
                4 => {
                    let number = (1u64 << self.below(64)).wrapping_sub(self.below(2) as u64).to_le_bytes();
                    bytes[at..end].iter_mut().zip(number).for_each(|(to, from)| *to = from);
                }
                5 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    let part = other[from..(from + self.below(64)).min(other.len())].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => bytes.get_mut(at).into_iter().for_each(|b| *b ^= 1 << (at % 8)),
            }
            if bytes.is_empty() {
                break;
            }
        }
        bytes
    }
}

fn feed(target: fn(&[u8]), seeds: &[Vec<u8>], n: usize) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    seeds.iter().for_each(|seed| target(seed));
    for i in 0..n {
        let bytes = random.damaged(seeds);
        let done = std::panic::catch_unwind(|| target(&bytes));
        if let Err(e) = done {
            let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz-input");
            std::fs::write(&path, &bytes).unwrap();
            eprintln!("input {i} is in {}", path.display());
            std::panic::resume_unwind(e);
        }
    }
}

#[test]
fn tokenizers() {
    let texts = [
        "",
        "\0\0Hello  wörld <|im_end|>\n\n123\u{1f600}",
        "\x07\x05▁a ▁ <0x0A> 3.14\r\n'll",
        "\x0d\x03<s>\u{300}e\u{301}",
    ];
    let seeds: Vec<Vec<u8>> = texts.iter().map(|text| text.repeat(3).into_bytes()).collect();
    feed(fuzzed::tokenizer, &seeds, deep(50_000, 500));
    feed(fuzzed::detokenizer, &seeds, deep(50_000, 500));
}

#[test]
fn saved_sessions_and_prefixes() {
    let (sessions, prefixes) = fuzzed::saved_seeds();
    feed(fuzzed::restore, &sessions, deep(20_000, 200));
    feed(fuzzed::prefix, &prefixes, deep(20_000, 200));
}

#[cfg(feature = "serve")]
#[test]
fn answers_with_calls_of_tools() {
    use crate::common::fuzzed_tools::{seeds, tools};
    feed(tools, &seeds(), deep(500_000, 5_000));
}

#[cfg(feature = "grammar")]
#[test]
fn grammars() {
    use crate::common::fuzzed_grammar::{grammar, seeds};
    feed(grammar, &seeds(), deep(500_000, 5_000));
}

#[cfg(feature = "capi")]
#[test]
fn calls_of_the_c_api() {
    // Of each call some, one after another, and with much behind it.
    let mut random = Random(7);
    let seeds: Vec<Vec<u8>> = (0..64).map(|i| (0..40 + 4 * i).map(|_| random.below(256) as u8).collect()).collect();
    feed(fuzzed::calls::run, &seeds, deep(20_000, 200));
}

/// Whatever the template, there is a text or an error, or the process has taken more than it may; it never panics.
#[cfg(all(unix, feature = "cli"))]
#[test]
fn templates() {
    use std::os::unix::process::ExitStatusExt;
    let pieces = [
        "{%- for m in messages -%}{{ '<|im_start|>' + m['role'] + '\n' + m.content | trim + '<|im_end|>\n' }}{%- endfor -%}",
        "{% macro f(x, y=1) %}{{ x[y:] ~ x | upper }}{% endmacro %}{{ f(messages[0].content) }}{{ f('abc', -1) }}",
        "{% set ns = namespace(n=0, l=[]) %}{% for i in range(9) %}{% set ns.n = ns.n + i %}{% set ns.l = ns.l + [ns.l] %}{% endfor %}",
        "{{ messages | tojson(indent=4) }}{{ messages | map(attribute='role') | list | join(',') }}{{ {'a': 1}.items() }}",
        "{% if messages[-1].content is string and not (x is defined) %}{{ 1 / 3 }}{{ 7 // 2 }}{{ 2 ** 70 }}{% else %}b{% endif %}",
        "{{ 'a-b'.split('-')[0].strip().startswith('a') }}{{ '%s %d' | format('a', 3) }}{{ [3, 1] | sort | first }}{{ 'ab' * 1000 }}",
        "{% filter upper %}{% raw %}{{ x }}{% endraw %}{% endfilter %}{{ strftime_now('%d %b') }}{{ range(100000) | sum }}",
    ];
    let seeds: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect();
    let mut random = Random(11);
    let mut renderer = crate::templates::start();
    let (mut answers, mut ends) = (0, 0);
    for i in 0..deep(20_000, 300) {
        let template = String::from_utf8_lossy(&random.damaged(&seeds)).into_owned();
        match crate::templates::ask(&mut renderer, &template) {
            Ok(answer) => {
                answers += 1;
                assert!(answer["text"].is_string() != answer["error"].is_string(), "{i}: {template:?}: {answer}");
            }
            Err(_) => {
                ends += 1;
                let status = renderer.wait().unwrap();
                assert!(status.signal().is_some(), "{i}: {template:?}: {status}");
                renderer = crate::templates::start();
            }
        }
    }
    assert!(answers > ends);
    drop(renderer.stdin.take());
    assert!(renderer.wait().unwrap().success());
}
