//! A place in a script, and what is said if something else was expected there.

use std::fmt;

/// Why a text is no script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    pub file: String,
    /// Counted from 1, as is the column (characters).
    pub line: usize,
    pub column: usize,
    pub expected: String,
    pub found: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: expected {}, found {}", self.file, self.line, self.column, self.expected, self.found)
    }
}

impl std::error::Error for ParseError {}

/// What was expected where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unexpected {
    pub at: usize,
    pub expected: String,
}

pub type Parsed<T> = Result<T, Unexpected>;

/// Reads `text` up to `end`. Spaces between tokens do not matter.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    /// Bytes `[at, end)` of `text`, which are boundaries of characters.
    pub fn new(text: &'a str, at: usize, end: usize) -> Self {
        Self { text, at, end }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..self.end]
    }

    fn skip_spaces(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Where the next token begins.
    pub fn at(&mut self) -> usize {
        self.skip_spaces();
        self.at
    }

    pub fn is_end(&mut self) -> bool {
        self.skip_spaces();
        self.rest().is_empty()
    }

    pub fn fail<T>(&mut self, expected: impl Into<String>) -> Parsed<T> {
        Err(Unexpected { at: self.at(), expected: expected.into() })
    }

    /// Takes `token` if it is next.
    pub fn eat(&mut self, token: &str) -> bool {
        self.skip_spaces();
        let is_next = self.rest().starts_with(token);
        if is_next {
            self.at += token.len();
        }
        is_next
    }

    pub fn want(&mut self, token: &str) -> Parsed<()> {
        if self.eat(token) { Ok(()) } else { self.fail(format!("`{token}`")) }
    }

    /// Takes characters as long as `wanted`.
    pub fn take(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        self.skip_spaces();
        let rest = self.rest();
        let len = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// Letters, digits and underscores that do not begin with a digit; may be empty.
    pub fn word(&mut self) -> &'a str {
        self.skip_spaces();
        if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            return "";
        }
        self.take(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    /// One of `words`, as an index. The whole word must agree.
    pub fn one_of(&mut self, words: &[&str]) -> Parsed<usize> {
        let before = *self;
        let word = self.word();
        match words.iter().position(|w| *w == word) {
            Some(index) => Ok(index),
            None => {
                *self = before;
                self.fail(alternatives(words))
            }
        }
    }

    /// A decimal number up to `max`.
    pub fn number(&mut self, max: u64) -> Parsed<u64> {
        let before = *self;
        match self.take(|c| c.is_ascii_digit()).parse() {
            Ok(n) if n <= max => Ok(n),
            _ => {
                *self = before;
                self.fail(format!("a number up to {max}"))
            }
        }
    }

    /// An int of C's, decimal or hexadecimal.
    pub fn integer(&mut self) -> Parsed<i32> {
        let before = *self;
        let sign = if self.eat("-") { "-" } else { "" };
        let radix = if self.eat("0x") { 16 } else { 10 };
        let digits = self.take(|c| c.is_ascii_hexdigit());
        i32::from_str_radix(&format!("{sign}{digits}"), radix).or_else(|_| {
            *self = before;
            self.fail("an integer")
        })
    }

    pub fn u32(&mut self) -> Parsed<u32> {
        self.number(u32::MAX.into()).map(|n| n as u32)
    }

    pub fn u16(&mut self) -> Parsed<u16> {
        self.number(u16::MAX.into()).map(|n| n as u16)
    }

    pub fn u8(&mut self) -> Parsed<u8> {
        self.number(u8::MAX.into()).map(|n| n as u8)
    }

    /// Seconds with up to six decimals, as microseconds.
    pub fn seconds(&mut self) -> Parsed<u64> {
        let before = *self;
        let whole = self.take(|c| c.is_ascii_digit());
        let mut fraction = "";
        // Not the dots of `...`.
        if self.rest().starts_with('.') && !self.rest().starts_with("..") {
            self.at += 1;
            let rest = self.rest();
            let len = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            self.at += len;
            fraction = &rest[..len];
        }
        let digits = whole.len() + fraction.len();
        let micros = format!("{whole}{fraction:0<6}").parse::<u64>();
        match micros {
            Ok(us) if digits > 0 && fraction.len() <= 6 && us <= SECONDS_MAX * 1_000_000 => Ok(us),
            _ => {
                *self = before;
                self.fail(format!("seconds with up to six decimals, up to {SECONDS_MAX}"))
            }
        }
    }
}

/// No script lasts longer: a year.
const SECONDS_MAX: u64 = 366 * 86_400;

/// "`a`, `b` or `c`"
pub fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} or {last}", first.join(", ")),
        None => "nothing".into(),
    }
}

/// Names the place `at` in `text`.
pub fn located(file: &str, text: &str, error: Unexpected) -> ParseError {
    let before = text.get(..error.at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    let rest = text.get(error.at..).unwrap_or_default();
    let token: String = rest.chars().take_while(|c| !c.is_whitespace()).take(20).collect();
    let found = match () {
        () if rest.trim().is_empty() => "the end".into(),
        () if token.is_empty() => "the end of the line".into(),
        () => format!("`{token}`"),
    };
    ParseError {
        file: file.into(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        expected: error.expected,
        found,
    }
}
