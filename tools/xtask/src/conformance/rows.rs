//! The rows: what an RFC asks for, in its own words, and what we say about it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The rows of one RFC.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// From the file's name.
    #[serde(skip)]
    pub number: u32,
    pub title: String,
    #[serde(rename = "row")]
    pub rows: Vec<Row>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The RFC's own name of the requirement, or section and number in it: `2.3-4`.
    pub id: String,
    pub section: String,
    pub level: Level,
    /// A short quotation.
    pub text: String,
    /// A deliberate exception, for this reason.
    exception: Option<String>,
    /// There is nothing here that it could be about, for this reason.
    not_applicable: Option<String>,
    /// To be built: what is missing.
    open: Option<String>,
    /// Why no script of packets shows it, though it is a MUST that is obeyed.
    pub no_script: Option<String>,
}

/// How strong a requirement is (RFC 2119); a step is one of an event's processing that has no such word.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    #[serde(rename = "MUST")]
    Must,
    #[serde(rename = "MUST NOT")]
    MustNot,
    #[serde(rename = "SHOULD")]
    Should,
    #[serde(rename = "SHOULD NOT")]
    ShouldNot,
    #[serde(rename = "MAY")]
    May,
    #[serde(rename = "STEP")]
    Step,
}

impl Level {
    pub const fn is_must(self) -> bool {
        matches!(self, Level::Must | Level::MustNot)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Level::Must => "MUST",
            Level::MustNot => "MUST NOT",
            Level::Should => "SHOULD",
            Level::ShouldNot => "SHOULD NOT",
            Level::May => "MAY",
            Level::Step => "STEP",
        }
    }
}

/// Why a row need not be covered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason<'a> {
    Exception(&'a str),
    NotApplicable(&'a str),
    Open(&'a str),
}

impl Row {
    /// What stands in place of citations, if anything.
    pub fn reason(&self) -> Option<Reason<'_>> {
        let exception = self.exception.as_deref().map(Reason::Exception);
        let not_applicable = self.not_applicable.as_deref().map(Reason::NotApplicable);
        exception.or(not_applicable).or(self.open.as_deref().map(Reason::Open))
    }

    fn check(&self) -> Result<()> {
        let reasons: Vec<&String> = [&self.exception, &self.not_applicable, &self.open, &self.no_script].into_iter().flatten().collect();
        // What is not obeyed needs no script anyway.
        ensure!(reasons.len() < 2, "{}: more than one reason", self.id);
        ensure!(reasons.iter().all(|reason| !reason.trim().is_empty()), "{}: a reason without words", self.id);
        ensure!(super::citations::is_id(&self.id), "'{}' is no id: see docs/conformance/README.md", self.id);
        Ok(())
    }
}

/// All files `rfcN.toml` of `folder`, by number.
pub fn load(folder: &Path) -> Result<Vec<Spec>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut specs = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(number) = name.strip_prefix("rfc").and_then(|rest| rest.strip_suffix(".toml")) {
            let number = number.parse().with_context(|| format!("{name}: the name has no number"))?;
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
            specs.push(parse(number, &text).with_context(|| format!("docs/conformance/{name}"))?);
        }
    }
    specs.sort_by_key(|spec: &Spec| spec.number);
    Ok(specs)
}

pub fn parse(number: u32, text: &str) -> Result<Spec> {
    let spec = Spec { number, ..toml::from_str(text)? };
    for (i, row) in spec.rows.iter().enumerate() {
        row.check()?;
        ensure!(spec.rows[..i].iter().all(|other| other.id != row.id), "{} is there twice", row.id);
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(more: &str) -> Result<Spec> {
        parse(1, &format!("title = 't'\n[[row]]\nid = '2.1-3'\nsection = '2.1'\nlevel = 'MUST NOT'\ntext = 'x'\n{more}"))
    }

    #[test]
    fn a_row_is_read() {
        let spec = row("open = 'all of it'").unwrap();
        assert_eq!((spec.number, spec.rows[0].level.name()), (1, "MUST NOT"));
        assert_eq!(spec.rows[0].reason(), Some(Reason::Open("all of it")));
        assert_eq!(row("").unwrap().rows[0].reason(), None);
    }

    #[test]
    fn contradictions_are_refused() {
        let twice = "[[row]]\nid = '2.1-3'\nsection = '2.1'\nlevel = 'MAY'\ntext = 'y'";
        let bad_id = "[[row]]\nid = '2.1'\nsection = '2.1'\nlevel = 'MAY'\ntext = 'y'";
        for more in ["open = 'a'\nexception = 'b'", "exception = ' '", "colour = 'red'", twice, bad_id] {
            assert!(row(more).is_err(), "{more}");
        }
    }
}
