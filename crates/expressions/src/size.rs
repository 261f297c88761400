//! Sizes of values before they exist, as far as they follow from the parts of the values that an expression names.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

/// Bytes of a text that weigh as much as an element.
pub(crate) const BYTES: u64 = 32;
/// Places of values that are followed one by one; more are bounded together.
const MAX_PLACES: usize = 10_000;

/// What is known of the size of a value before it exists.
#[derive(Debug, Clone)]
pub(crate) enum Size<'a> {
    /// It is one of these parts of the values, of which none has more.
    OneOf { places: Rc<[&'a Value]>, weight: u64, elements: u64 },
    /// It has at most this weight and as many elements, each of at most the size of `part`. One whose parts are not known may have
    /// a part that has all of its weight, in elements.
    AtMost { weight: u64, elements: u64, part: Option<Rc<Self>> },
}

impl Size<'_> {
    /// Size of numbers, truth values and empty lists.
    pub(crate) const SMALL: Self = Self::AtMost { weight: 2, elements: 0, part: None };

    pub(crate) fn text(weight: u64) -> Self {
        Self::AtMost { weight, elements: 0, part: None }
    }

    /// Returns the size of anything of a weight.
    pub(crate) fn any(weight: u64) -> Self {
        Self::AtMost { weight, elements: weight, part: None }
    }

    pub(crate) fn weight(&self) -> u64 {
        match self {
            Self::OneOf { weight, .. } | Self::AtMost { weight, .. } => *weight,
        }
    }

    pub(crate) fn elements(&self) -> u64 {
        match self {
            Self::OneOf { elements, .. } | Self::AtMost { elements, .. } => *elements,
        }
    }

    /// Whether all that is known of another size holds for this one.
    fn is_within(&self, other: &Self) -> bool {
        self.elements() == 0 && self.weight() <= other.weight()
    }

    fn has_known_parts(&self) -> bool {
        !matches!(self, Self::AtMost { part: None, elements: 1.., .. })
    }
}

/// Weights of lists and objects by their addresses, so that each is found once: expressions name the same values in many places. The
/// second is that of their largest part.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    known: HashMap<*const Value, (u64, u64)>,
    /// Parts of expressions and values that were looked at.
    pub(crate) visits: u64,
}

impl Weights {
    /// Returns the elements of a value and of what it contains, and the bytes of its texts in proportion.
    pub(crate) fn of(&mut self, value: &Value) -> u64 {
        self.with_largest(value).0
    }

    fn with_largest(&mut self, value: &Value) -> (u64, u64) {
        self.visits += 1;
        let text = |text: &str| 1 + text.len() as u64 / BYTES;
        let own = match value {
            Value::String(own) => return (text(own), 0),
            Value::Array(_) | Value::Object(_) => self.known.get(&std::ptr::from_ref(value)).copied(),
            _ => return (1, 0),
        };
        own.unwrap_or_else(|| {
            let (mut weight, mut largest) = (1_u64, 1);
            let mut add = |part: u64| {
                weight = weight.saturating_add(part);
                largest = part.max(largest);
            };
            match value {
                Value::Array(list) => list.iter().for_each(|part| add(self.of(part))),
                Value::Object(object) => object.iter().for_each(|(key, part)| {
                    add(text(key));
                    add(self.of(part));
                }),
                _ => {}
            }
            self.known.insert(std::ptr::from_ref(value), (weight, largest));
            (weight, largest)
        })
    }

    /// Returns the size of any part of some values.
    fn largest<'a>(&mut self, values: &[&'a Value]) -> Size<'a> {
        Size::any(values.iter().map(|value| self.with_largest(value).1).max().unwrap_or(1))
    }

    /// Returns the size of what is one of these parts of the values.
    pub(crate) fn one_of<'a>(&mut self, places: Vec<&'a Value>) -> Size<'a> {
        let count = |value: &&Value| match value {
            Value::Array(list) => list.len() as u64,
            Value::Object(object) => object.len() as u64,
            _ => 0,
        };
        let weight = places.iter().map(|value| self.of(value)).max().unwrap_or(1);
        let elements = places.iter().map(count).max().unwrap_or(0);
        Size::OneOf { places: places.into(), weight, elements }
    }

    /// Returns the size of a field.
    pub(crate) fn field<'a>(&mut self, of: &Size<'a>, name: &str) -> Size<'a> {
        let Size::OneOf { places, .. } = of else { return self.element(of) };
        self.visits += places.len() as u64;
        self.one_of(places.iter().filter_map(|value| value.get(name)).collect())
    }

    /// Returns the size of any element, or of any field.
    pub(crate) fn element<'a>(&mut self, of: &Size<'a>) -> Size<'a> {
        let values = match of {
            Size::OneOf { places, .. } => places,
            Size::AtMost { part: Some(part), .. } => return Size::clone(part),
            Size::AtMost { weight, part: None, .. } => return Size::any(*weight),
        };
        let mut places = Vec::new();
        for value in values.iter() {
            self.visits += 1;
            match value {
                Value::Array(list) => places.extend(list.iter().take(MAX_PLACES + 1)),
                // Its keys are what a loop sees, its values what an index finds.
                Value::Object(object) => {
                    self.visits += object.len() as u64;
                    places.extend(object.values().take(MAX_PLACES + 1));
                    if object.keys().any(|key| key.len() as u64 >= BYTES) {
                        return self.largest(values);
                    }
                }
                _ => {}
            }
            if places.len() > MAX_PLACES {
                self.visits += places.len() as u64;
                return self.largest(values);
            }
        }
        self.one_of(places)
    }

    /// Returns the size of what is one or the other.
    pub(crate) fn either<'a>(&mut self, one: Size<'a>, other: Size<'a>) -> Size<'a> {
        if one.is_within(&other) {
            return other;
        }
        if other.is_within(&one) {
            return one;
        }
        if let (Size::OneOf { places, .. }, Size::OneOf { places: others, .. }) = (&one, &other)
            && places.len() + others.len() <= MAX_PLACES
        {
            return self.one_of(places.iter().chain(others.iter()).copied().collect());
        }
        let weight = one.weight().max(other.weight());
        let elements = one.elements().max(other.elements());
        Size::AtMost { weight, elements, part: self.parts(&one, &other) }
    }

    /// Returns the size of what has the elements of both.
    pub(crate) fn both<'a>(&mut self, one: &Size<'a>, other: &Size<'a>) -> Size<'a> {
        let weight = one.weight().saturating_add(other.weight());
        let elements = one.elements().saturating_add(other.elements());
        Size::AtMost { weight, elements, part: self.parts(one, other) }
    }

    /// Returns the size of the elements of two values, if it is known of both.
    fn parts<'a>(&mut self, one: &Size<'a>, other: &Size<'a>) -> Option<Rc<Size<'a>>> {
        if !one.has_known_parts() || !other.has_known_parts() {
            return None;
        }
        let parts = [one, other].map(|size| match size.elements() {
            0 => Size::SMALL,
            _ => self.element(size),
        });
        let [one, other] = parts;
        Some(Rc::new(self.either(one, other)))
    }
}
