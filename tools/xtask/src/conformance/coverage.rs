//! Rows and citations put together.

use super::citations::{Citation, Kind};
use super::rows::{Reason, Row, Spec};

pub struct Coverage {
    pub specs: Vec<Spec>,
    citations: Vec<Citation>,
}

/// How a row stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Covered,
    Exception,
    NotApplicable,
    Open,
}

pub fn state(row: &Row) -> State {
    match row.reason() {
        None => State::Covered,
        Some(Reason::Exception(_)) => State::Exception,
        Some(Reason::NotApplicable(_)) => State::NotApplicable,
        Some(Reason::Open(_)) => State::Open,
    }
}

impl Coverage {
    pub fn new(specs: Vec<Spec>, citations: Vec<Citation>) -> Self {
        Self { specs, citations }
    }

    /// Where a row is cited by such.
    pub fn places(&self, rfc: u32, row: &Row, kind: Kind) -> Vec<&str> {
        let cited = self.citations.iter().filter(|c| c.rfc == rfc && c.id == row.id && c.kind == kind);
        cited.map(|c| c.place.as_str()).collect()
    }

    /// What must not be: each a sentence.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.citations.iter().filter_map(|c| self.unknown(c)).collect();
        for spec in &self.specs {
            problems.extend(spec.rows.iter().filter_map(|row| self.lacking(spec.number, row)));
        }
        problems
    }

    fn unknown(&self, c: &Citation) -> Option<String> {
        let spec = self.specs.iter().find(|spec| spec.number == c.rfc);
        let is_known = spec.is_some_and(|spec| spec.rows.iter().any(|row| row.id == c.id));
        (!is_known).then(|| format!("{}: there is no row RFC {} {}", c.place, c.rfc, c.id))
    }

    /// Whether a script of packets shows it.
    fn is_scripted(&self, rfc: u32, row: &Row) -> bool {
        self.citations.iter().any(|c| c.rfc == rfc && c.id == row.id && c.kind == Kind::Test && c.is_in_script())
    }

    fn lacking(&self, rfc: u32, row: &Row) -> Option<String> {
        let (code, tests) = (self.places(rfc, row, Kind::Code), self.places(rfc, row, Kind::Test));
        let wrong = match row.reason() {
            None if code.is_empty() && tests.is_empty() => "is neither cited nor has it a reason".to_owned(),
            None if code.is_empty() => "is cited in no code".to_owned(),
            None if tests.is_empty() => "is cited in no test".to_owned(),
            None if row.level.is_must() && row.no_script.is_none() && !self.is_scripted(rfc, row) => {
                "is a MUST: cite it in a script of packets, or say why none shows it (no_script)".to_owned()
            }
            None if row.no_script.is_some() && self.is_scripted(rfc, row) => "has a reason for no script, but has one".to_owned(),
            Some(Reason::Exception(_) | Reason::NotApplicable(_)) => {
                format!("has a reason not to be obeyed, but is cited: {}", code.first().or(tests.first())?)
            }
            // What is done of it may be cited already.
            None | Some(Reason::Open(_)) => return None,
        };
        Some(format!("RFC {rfc} {} {wrong}", row.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::rows;

    const CODE: Kind = Kind::Code;
    const TEST: Kind = Kind::Test;

    fn problems(reason: &str, cited: &[(&str, Kind)]) -> Vec<String> {
        problems_at("SHOULD", "a.rs:1", reason, cited)
    }

    fn problems_at(level: &str, place: &str, reason: &str, cited: &[(&str, Kind)]) -> Vec<String> {
        let text = format!("title = 't'\n[[row]]\nid = '2-1'\nsection = '2'\nlevel = '{level}'\ntext = 'x'\n{reason}");
        let cite = |&(id, kind): &(&str, Kind)| Citation { rfc: 7, id: id.to_owned(), place: place.into(), kind };
        Coverage::new(vec![rows::parse(7, &text).unwrap()], cited.iter().map(cite).collect()).problems()
    }

    #[test]
    fn covered_is_cited_by_code_and_test() {
        assert_eq!(problems("", &[("2-1", CODE), ("2-1", TEST)]), [""; 0]);
        assert_eq!(problems("", &[("2-1", CODE)]), ["RFC 7 2-1 is cited in no test"]);
        assert_eq!(problems("", &[("2-1", TEST)]), ["RFC 7 2-1 is cited in no code"]);
        assert_eq!(problems("", &[("2-1", CODE), ("2-1", Kind::Gap)]), ["RFC 7 2-1 is cited in no test"]);
        assert_eq!(problems("", &[]), ["RFC 7 2-1 is neither cited nor has it a reason"]);
    }

    #[test]
    fn a_must_is_shown_by_a_script() {
        let both = [("2-1", CODE), ("2-1", TEST)];
        assert_eq!(problems_at("MUST", "a.pkt:1", "", &both), [""; 0]);
        assert_eq!(problems_at("MUST", "a.rs:1", "no_script = 'a'", &both), [""; 0]);
        assert!(problems_at("MUST NOT", "a.rs:1", "", &both)[0].contains("no_script"));
        assert_eq!(problems_at("MUST", "a.pkt:1", "no_script = 'a'", &both), ["RFC 7 2-1 has a reason for no script, but has one"]);
    }

    #[test]
    fn what_is_not_obeyed_is_not_cited() {
        for reason in ["exception = 'a'", "not_applicable = 'a'"] {
            assert_eq!(problems(reason, &[]), [""; 0]);
            assert_eq!(problems(reason, &[("2-1", TEST)]), ["RFC 7 2-1 has a reason not to be obeyed, but is cited: a.rs:1"]);
        }
        assert_eq!(problems("open = 'a'", &[("2-1", CODE)]), [""; 0]);
        assert_eq!(problems("exception = 'a'", &[("2-1", Kind::Gap)]), [""; 0]);
    }

    #[test]
    fn unknown_rows_are_not_to_be_cited() {
        assert_eq!(problems("open = 'a'", &[("2-2", CODE)]), ["a.rs:1: there is no row RFC 7 2-2"]);
    }
}
