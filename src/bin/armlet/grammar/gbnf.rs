//! GBNF, llama.cpp's grammar language (<https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md>), in the dialect of
//! Lark that llguidance reads.
//!
//! Strings become single characters: a lexer takes the longest string that fits, and a grammar of characters has no longest.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::CharIndices;

/// How often an item comes that does not come.
const NEVER: &str = "{0}";
/// Deepest nesting of parentheses, of which each repetition of what is repeated already is one in Lark.
const DEEPEST: usize = 64;
/// The most items: names, classes, characters of strings.
const ITEMS: usize = 8192;
/// The most rules: one may begin with the next.
const RULES: usize = 2048;

/// Translates a grammar, whose first rule is `root`.
///
/// # Errors
/// What is wrong with it, and in which line.
pub(super) fn to_lark(text: &str) -> Result<String, String> {
    let mut reader = Reader { text, chars: text.char_indices().peekable(), depth: 0, items: 0 };
    let (mut out, mut defined, mut used) = (String::new(), BTreeSet::new(), BTreeSet::new());
    loop {
        reader.space(true);
        let Some(name) = reader.name() else { break };
        reader.space(false);
        reader.expect("::=")?;
        if !defined.insert(name.clone()) {
            return Err(reader.wrong(&format!("a second rule {name}")));
        }
        if defined.len() > RULES {
            return Err(reader.wrong(&format!("more than {RULES} rules")));
        }
        let alternatives = reader.alternatives(&mut used)?;
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}: {alternatives}", rule(&name));
    }
    if reader.chars.peek().is_some() {
        return Err(reader.wrong("a name of a rule is missing"));
    }
    if let Some(name) = used.difference(&defined).next() {
        return Err(format!("there is no rule {name}"));
    }
    if defined.contains("root") { Ok(out) } else { Err("there is no rule root".into()) }
}

/// The name of a rule in Lark, where it begins with a small letter.
fn rule(name: &str) -> String {
    if name == "root" {
        return "start".into();
    }
    let spelled = |c: char| match c {
        // What Lark does not have; a doubled underscore keeps names apart.
        '_' => "__".into(),
        '-' => "_h".into(),
        'A'..='Z' => format!("_u{}", c.to_ascii_lowercase()),
        c => c.to_string(),
    };
    format!("r_{}", name.chars().map(spelled).collect::<String>())
}

struct Reader<'t> {
    text: &'t str,
    chars: Peekable<CharIndices<'t>>,
    depth: usize,
    /// Names, classes and characters so far.
    items: usize,
}

impl Reader<'_> {
    fn wrong(&mut self, what: &str) -> String {
        let at = self.chars.peek().map_or(self.text.len(), |(at, _)| *at);
        format!("line {}: {what}", self.text[..at].matches('\n').count() + 1)
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    fn take(&mut self, wanted: char) -> bool {
        self.chars.next_if(|(_, c)| *c == wanted).is_some()
    }

    /// Skips blanks and comments; line ends only where a rule goes on.
    fn space(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => {}
                '\r' | '\n' if lines => {}
                '#' => while self.chars.next_if(|(_, c)| *c != '\n').is_some() {},
                _ => return,
            }
            if c != '#' {
                self.chars.next();
            }
        }
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        if text.chars().all(|c| self.take(c)) { Ok(()) } else { Err(self.wrong(&format!("{text} is missing"))) }
    }

    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        while let Some((_, c)) = self.chars.next_if(|(_, c)| c.is_ascii_alphanumeric() || ['-', '_'].contains(c)) {
            name.push(c);
        }
        Some(name).filter(|name| !name.is_empty())
    }

    fn alternatives(&mut self, used: &mut BTreeSet<String>) -> Result<String, String> {
        let mut out = self.sequence(used)?;
        while self.take('|') {
            let _ = write!(out, " | {}", self.sequence(used)?);
        }
        Ok(out)
    }

    fn sequence(&mut self, used: &mut BTreeSet<String>) -> Result<String, String> {
        let mut items: Vec<String> = Vec::new();
        loop {
            // Behind a `|` and within parentheses a rule may go on in the next line.
            self.space(self.depth > 0 || items.is_empty());
            let item = match self.peek() {
                Some('"') => self.string()?,
                Some('[') => self.class()?,
                Some('(') => self.group(used)?,
                Some('.') => {
                    self.chars.next();
                    "/(.|\\n)/".into()
                }
                Some(c) if c.is_ascii_alphanumeric() && !self.begins_rule() => {
                    let name = self.name().unwrap_or_default();
                    let item = rule(&name);
                    used.insert(name);
                    item
                }
                _ => break,
            };
            items.push(item);
            self.item()?;
            self.space(false);
            let mut depth = self.depth;
            while let Some(times) = self.times()? {
                depth += 1;
                if depth > DEEPEST {
                    return Err(self.wrong("repetitions are nested too deeply"));
                }
                let item = items.pop().unwrap_or_default();
                items.push(if times == NEVER { "\"\"".into() } else { format!("({item}){times}") });
                self.space(false);
            }
        }
        // Nothing at all is an alternative, too.
        Ok(if items.is_empty() { "\"\"".into() } else { items.join(" ") })
    }

    /// Counts one more.
    fn item(&mut self) -> Result<(), String> {
        self.items += 1;
        if self.items <= ITEMS {
            Ok(())
        } else {
            Err(self.wrong(&format!("more than {ITEMS} names, classes and characters")))
        }
    }

    /// Whether a name is that of the next rule.
    fn begins_rule(&self) -> bool {
        let rest = self.chars.clone().map(|(_, c)| c);
        let mut rest = rest.skip_while(|c| c.is_ascii_alphanumeric() || ['-', '_'].contains(c));
        let next = rest.find(|c| ![' ', '\t'].contains(c));
        next == Some(':')
    }

    fn group(&mut self, used: &mut BTreeSet<String>) -> Result<String, String> {
        self.chars.next();
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.wrong("parentheses are nested too deeply"));
        }
        let inner = self.alternatives(used)?;
        self.space(true);
        self.depth -= 1;
        if self.take(')') { Ok(format!("({inner})")) } else { Err(self.wrong("a ) is missing")) }
    }

    /// How often an item comes.
    fn times(&mut self) -> Result<Option<String>, String> {
        match self.peek() {
            Some(c @ ('*' | '+' | '?')) => {
                self.chars.next();
                Ok(Some(c.to_string()))
            }
            Some('{') => {
                self.chars.next();
                let mut inner = String::new();
                while let Some((_, c)) = self.chars.next_if(|(_, c)| *c != '}') {
                    inner.push(c);
                }
                self.expect("}")?;
                // The least and the most, of which either may be missing.
                let number =
                    |text: &str| if text.trim().is_empty() { Some(None) } else { text.trim().parse().ok().map(Some) };
                let range = match inner.split_once(',') {
                    Some((from, to)) => number(from).zip(number(to)),
                    None => number(&inner).filter(Option::is_some).map(|n| (n, n)),
                };
                let (from, to): (Option<u16>, Option<u16>) = range.ok_or_else(|| self.wrong("no {m,n}"))?;
                let shown = |n: Option<u16>| n.map_or(String::new(), |n| n.to_string());
                Ok(Some(if to == Some(0) { NEVER.into() } else { format!("{{{},{}}}", from.unwrap_or(0), shown(to)) }))
            }
            _ => Ok(None),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        self.chars.next();
        let mut items = Vec::new();
        loop {
            match self.peek() {
                None | Some('\n') => return Err(self.wrong("a \" is missing")),
                Some('"') => break,
                Some(_) => {
                    items.push(format!("/{}/", escaped(self.character()?)));
                    self.item()?;
                }
            }
        }
        self.chars.next();
        Ok(match items.len() {
            0 => "\"\"".into(),
            1 => items.concat(),
            _ => format!("({})", items.join(" ")),
        })
    }

    fn class(&mut self) -> Result<String, String> {
        self.chars.next();
        let mut out = String::from(if self.take('^') { "/[^" } else { "/[" });
        let empty = out.len();
        loop {
            match self.peek() {
                None | Some('\n') => return Err(self.wrong("a ] is missing")),
                Some(']') => break,
                Some('-') => {
                    self.chars.next();
                    // A hyphen that is first or last is itself.
                    out.push_str(if out.len() == empty || self.peek() == Some(']') { "\\-" } else { "-" });
                }
                Some(_) => out.push_str(&escaped(self.character()?)),
            }
        }
        self.chars.next();
        match out.as_str() {
            "/[" => Err(self.wrong("an empty []")),
            "/[^" => Ok("/(.|\\n)/".into()),
            _ => Ok(out + "]/"),
        }
    }

    /// A character of a string or a class.
    fn character(&mut self) -> Result<char, String> {
        let next = |reader: &mut Self| reader.chars.next().map(|(_, c)| c);
        let c = next(self).ok_or("the grammar ends within a string")?;
        if c != '\\' {
            return Ok(c);
        }
        let digits = match next(self) {
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some(c @ ('"' | '\\' | '[' | ']' | '-' | '^' | '/')) => return Ok(c),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => return Err(self.wrong("an unknown escape")),
        };
        let mut number = 0;
        for _ in 0..digits {
            let digit =
                next(self).and_then(|c| c.to_digit(16)).ok_or_else(|| self.wrong("a hexadecimal digit is missing"))?;
            number = number * 16 + digit;
        }
        char::from_u32(number).ok_or_else(|| self.wrong("no character has this number"))
    }
}

/// A character in a regular expression, in or out of brackets.
pub(super) fn escaped(c: char) -> String {
    if c.is_alphanumeric() || c == '_' { c.to_string() } else { format!("\\u{{{:x}}}", u32::from(c)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_their_lark() {
        let lark =
            to_lark("# words\nroot ::= a-b | \"x\\n\"  # end\na-b ::= [a-z0-9-]+ (\n  root |\n  .\n){2,} \"\"?\n");
        let a_b = "r_a_hb: (/[a-z0-9\\-]/)+ ((start | /(.|\\n)/)){2,} (\"\")?\n";
        assert_eq!(lark.unwrap(), format!("start: r_a_hb | (/x/ /\\u{{a}}/)\n{a_b}"));
    }

    #[test]
    fn what_is_wrong_names_its_line() {
        for (text, what) in [
            ("", "there is no rule root"),
            ("root ::= other", "there is no rule other"),
            ("root ::= \"a", "line 1: a \" is missing"),
            ("root ::= \"a\"\nroot ::= \"b\"", "line 2: a second rule root"),
            ("root ::= (\"a\"", "a ) is missing"),
            ("root ::= [a", "a ] is missing"),
            ("root ::= []", "an empty []"),
            ("root ::= \"a\"{x}", "no {m,n}"),
            ("root ::= \"a\"{{3}", "no {m,n}"),
            ("root ::= \"a\"{1,2", "} is missing"),
            ("root ::= \"\\q\"", "an unknown escape"),
            ("root ::= \"\\xg0\"", "a hexadecimal digit is missing"),
            ("root = \"a\"", "::= is missing"),
            ("root ::= \"a\" )", "a name of a rule is missing"),
        ] {
            let error = to_lark(text).unwrap_err();
            assert!(error.contains(what), "{text:?}: {error}");
        }
        let deep = format!("root ::= {}", "(".repeat(100_000));
        assert!(to_lark(&deep).unwrap_err().contains("too deeply"));
        // Each takes all before it: a million would take hours.
        let repeated = format!("root ::= \"a\"{}", "*".repeat(1_000_000));
        assert!(to_lark(&repeated).unwrap_err().contains("too deeply"));
        let chain = |n: usize| (0..n).map(|i| format!("r{i} ::= r{}\n", i + 1)).collect::<String>();
        assert_eq!(to_lark(&format!("{}r2000 ::= root\nroot ::= r0", chain(2000))).map(|_| ()), Ok(()));
        assert!(to_lark(&chain(3000)).unwrap_err().contains("line 2049: more than 2048 rules"));
        let long = |n: usize| to_lark(&format!("root ::= \"{}\"", "ab".repeat(n)));
        assert!(long(4000).is_ok() && long(4100).unwrap_err().contains("more than 8192 names"));
    }
}
