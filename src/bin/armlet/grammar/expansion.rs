//! What becomes of a schema when what holds together is one: each alternative of one with each of the other, at each place of a
//! value. What is said of different places is independent.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use serde_json::{Map, Value};

use super::schema::{EXPANDED, SILENT, target_of};

/// Bytes of text that weigh as much as a value.
pub(super) const WEIGHT: usize = 64;

/// Where something is within a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'s> {
    Name(&'s str),
    /// Under any other name.
    Others,
    /// In a list, wherever.
    Items,
}

/// How large a schema is then.
#[derive(Clone, Debug)]
pub(super) struct Size<'s> {
    /// Values at this place.
    own: u64,
    /// Alternatives at this place.
    ways: u64,
    /// Patterns that a text at this place must have, and `multipleOf` that a number must.
    held: [u64; 2],
    /// What is within it, in all alternatives.
    within: Rc<BTreeMap<Place<'s>, Size<'s>>>,
    /// All values, with those within.
    pub(super) values: u64,
    /// The most patterns of one text, and `multipleOf` of one number, with those within.
    pub(super) most: [u64; 2],
}

impl<'s> Size<'s> {
    fn leaf(own: u64) -> Self {
        Size { own, ways: 1, held: [0; 2], within: Rc::default(), values: own, most: [0; 2] }
    }

    /// What is said of a place: of a name that is not known, what is said of others.
    fn at(&self, place: Place<'s>) -> Option<&Self> {
        let others = || self.within.get(&Place::Others).filter(|_| matches!(place, Place::Name(_)));
        self.within.get(&place).or_else(others)
    }

    /// With what is within it.
    fn of(own: u64, ways: u64, held: [u64; 2], within: BTreeMap<Place<'s>, Size<'s>>) -> Self {
        let values = within.values().fold(own, |sum, size| sum.saturating_add(size.values));
        let most = within.values().fold(held, |most, size| each(most, size.most, u64::max));
        Size { own, ways, held, within: Rc::new(within), values, most }
    }
}

pub(super) struct Expansion<'s> {
    root: &'s Value,
    /// References stand for what they name.
    follows: bool,
    /// Somewhere several must hold together.
    pub(super) joined: bool,
    /// What references become; none while that is being found, for a circle.
    known: HashMap<&'s str, Size<'s>>,
    /// Places that may still be joined: what is named twice is written out twice.
    left: u64,
}

impl<'s> Expansion<'s> {
    pub(super) fn new(root: &'s Value, follows: bool) -> Self {
        Expansion { root, follows, joined: false, known: HashMap::new(), left: EXPANDED }
    }

    pub(super) fn of(&mut self, schema: &'s Value) -> Size<'s> {
        match schema {
            Value::Object(members) => self.object(members),
            Value::Array(list) => {
                let sizes: Vec<Size<'s>> = list.iter().map(|value| self.of(value)).collect();
                sizes.into_iter().reduce(|one, other| self.or(one, &other)).unwrap_or_else(|| Size::leaf(1))
            }
            Value::String(text) => Size::leaf(1 + (text.len() / WEIGHT) as u64),
            _ => Size::leaf(1),
        }
    }

    fn object(&mut self, members: &'s Map<String, Value>) -> Size<'s> {
        let mut parts: Vec<Size<'s>> = Vec::new();
        let (mut own, mut held, mut within) = (1, [0; 2], BTreeMap::new());
        let (mut speaks, mut compound) = (false, false);
        for (key, value) in members {
            compound |= matches!(key.as_str(), "allOf" | "anyOf" | "oneOf" | "$ref");
            match (key.as_str(), value) {
                // They weigh nothing where they stand, but hold together what they do.
                ("$defs" | "definitions", Value::Object(named)) => named.values().for_each(|value| _ = self.of(value)),
                // Names are no keywords.
                ("properties" | "patternProperties" | "dependentSchemas", Value::Object(named)) => {
                    speaks = true;
                    for (name, value) in named {
                        let place = if key == "properties" { Place::Name(name) } else { Place::Others };
                        self.put(&mut within, place, value);
                    }
                }
                ("allOf", Value::Array(list)) => parts.extend(list.iter().map(|value| self.of(value))),
                ("anyOf" | "oneOf" | "enum", Value::Array(_)) => parts.push(self.of(value)),
                ("const", value) => parts.push(self.of(value)),
                ("$ref", Value::String(target)) => parts.push(self.reference(target)),
                (key, _) if SILENT.contains(&key) => {}
                (key, value) => {
                    speaks = true;
                    let is_pattern = matches!(key, "pattern" | "format" | "minLength" | "maxLength");
                    held[0] += u64::from(is_pattern && !value.is_object());
                    held[1] += u64::from(key == "multipleOf");
                    match key {
                        "additionalProperties" => self.put(&mut within, Place::Others, value),
                        "items" | "prefixItems" | "additionalItems" => self.put(&mut within, Place::Items, value),
                        _ => own += self.of(value).values,
                    }
                }
            }
        }
        parts.extend((speaks || parts.is_empty()).then(|| Size::of(own, 1, held, within)));
        // Values that are listed are only fewer by what is said beside them.
        self.joined |= compound && parts.len() > 1;
        parts.into_iter().reduce(|one, other| self.and(&one, &other)).unwrap_or_else(|| Size::leaf(1))
    }

    fn put(&mut self, within: &mut BTreeMap<Place<'s>, Size<'s>>, place: Place<'s>, schema: &'s Value) {
        let size = self.of(schema);
        let size = match within.remove(&place) {
            Some(before) => self.or(before, &size),
            None => size,
        };
        within.insert(place, size);
    }

    fn reference(&mut self, reference: &'s str) -> Size<'s> {
        if !self.follows {
            return Size::leaf(1);
        }
        if let Some(known) = self.known.get(reference) {
            return known.clone();
        }
        // A circle is refused where it must be followed.
        self.known.insert(reference, Size::leaf(1));
        let size = target_of(self.root, reference).map_or_else(|| Size::leaf(1), |target| self.of(target));
        self.known.insert(reference, size.clone());
        size
    }

    /// Whether one more may be joined.
    fn may_join(&mut self) -> bool {
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    /// Either of them.
    fn or(&mut self, one: Size<'s>, other: &Size<'s>) -> Size<'s> {
        if !self.may_join() {
            return Size::leaf(u64::MAX);
        }
        let mut within = Rc::unwrap_or_clone(one.within);
        for (place, size) in other.within.iter() {
            let size = match within.remove(place) {
                Some(before) => self.or(before, size),
                None => size.clone(),
            };
            within.insert(*place, size);
        }
        let (own, ways) = (one.own.saturating_add(other.own), one.ways.saturating_add(other.ways));
        Size::of(own, ways, each(one.held, other.held, u64::max), within)
    }

    /// Both at once: each alternative of one with each of the other.
    fn and(&mut self, one: &Size<'s>, other: &Size<'s>) -> Size<'s> {
        if !self.may_join() {
            return Size::leaf(u64::MAX);
        }
        let mut within = BTreeMap::new();
        for place in one.within.keys().chain(other.within.keys()).copied() {
            if within.contains_key(&place) {
                continue;
            }
            let size = match (one.at(place), other.at(place)) {
                (Some(here), Some(there)) => {
                    let mut size = self.and(here, there);
                    // Of alternatives some may say nothing of it.
                    for (alone, beside) in [(here, other), (there, one)] {
                        if beside.ways > 1 {
                            let copies = self.copies(alone, beside.ways);
                            size = self.or(size, &copies);
                        }
                    }
                    size
                }
                (Some(alone), None) => self.copies(alone, other.ways),
                (None, alone) => alone.map_or_else(|| Size::leaf(0), |alone| self.copies(alone, one.ways)),
            };
            within.insert(place, size);
        }
        let own = one.own.saturating_mul(other.ways).saturating_add(other.own.saturating_mul(one.ways));
        Size::of(own, one.ways.saturating_mul(other.ways), each(one.held, other.held, u64::saturating_add), within)
    }

    /// So many of the same.
    fn copies(&mut self, size: &Size<'s>, n: u64) -> Size<'s> {
        if n == 1 {
            return size.clone();
        }
        if !self.may_join() {
            return Size::leaf(u64::MAX);
        }
        let within = size.within.iter().map(|(place, size)| (*place, self.copies(size, n))).collect();
        Size::of(size.own.saturating_mul(n), size.ways.saturating_mul(n), size.held, within)
    }
}

/// Each of one with that of the other.
fn each(one: [u64; 2], other: [u64; 2], with: fn(u64, u64) -> u64) -> [u64; 2] {
    [with(one[0], other[0]), with(one[1], other[1])]
}
