//! How many items or members there may be, in the grammar's language.

use std::rc::Rc;

use serde_json::{Map, Value};

/// Schemas without alternatives, all of which hold.
pub(super) type Together = Vec<Rc<Map<String, Value>>>;

/// How many there may be.
#[derive(Clone, Copy)]
pub(super) struct Count {
    pub(super) least: usize,
    pub(super) most: Option<usize>,
}

impl Count {
    pub(super) const ANY: Count = Count { least: 0, most: None };

    /// Of what all of these say.
    pub(super) fn of(all: &Together, least: &str, most: &str) -> Result<Self, String> {
        let numbers = |key: &str| {
            let given = all.iter().filter_map(|schema| schema.get(key));
            let number = |n: &Value| n.as_u64().map(|n| n as usize).ok_or_else(|| format!("{key} is no number: {n}"));
            given.map(number).collect::<Result<Vec<_>, String>>()
        };
        let (least, most) = (numbers(least)?, numbers(most)?);
        Ok(Count { least: least.into_iter().max().unwrap_or(0), most: most.into_iter().min() })
    }

    pub(super) fn is_possible(self) -> bool {
        self.most.is_none_or(|most| self.least <= most)
    }

    /// Behind so many.
    pub(super) fn behind(self, n: usize) -> Self {
        Count { least: self.least.saturating_sub(n), most: self.most.map(|most| most.saturating_sub(n)) }
    }

    /// So many of these, each with `between` before it, but for the first if it `begins` something.
    pub(super) fn repeated(self, item: &str, between: &str, begins: bool) -> String {
        let more = |count: Count| match count.most {
            Some(0) => String::new(),
            most => {
                let most = most.map_or(String::new(), |most| most.to_string());
                format!("({between} {item}){{{},{most}}}", count.least)
            }
        };
        match (begins, self.most) {
            (_, Some(0)) => "\"\"".into(),
            (false, _) => more(self),
            (true, _) if self.least == 0 => format!("({item} {})?", more(self.behind(1))),
            (true, _) => format!("{item} {}", more(self.behind(1))),
        }
    }
}
