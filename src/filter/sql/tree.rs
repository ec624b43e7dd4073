//! A parsed expression, and what it says of a message.
//!
//! Three values: true, false and null. `AND` and `OR` do not look at their right side if the left
//! one decides, so an error there does not count. Sources: `LogicExpression`, `UnaryExpression`,
//! `ComparisonExpression`, `PropertyExpression`.

use std::borrow::Cow;
use std::cmp::Ordering;

use smallvec::SmallVec;

use super::value::{Failed, Value};

/// An expression and the names of its properties, each once.
#[derive(Clone, Debug)]
pub struct Tree {
    pub root: Node,
    pub names: Vec<Box<str>>,
}

/// A value that an expression owns.
#[derive(Clone, Debug)]
pub enum Constant {
    Plain(Value<'static>),
    Text(Box<str>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Search {
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Clone, Debug)]
pub enum Node {
    Constant(Constant),
    /// By its place in [`Tree::names`].
    Property(usize),
    Negated(Box<Node>),
    Not(Box<Node>),
    /// A property as a truth value: never true, for it is a string.
    Cast(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Equal(Box<(Node, Node)>),
    Ordered(Order, Box<(Node, Node)>),
    Search {
        search: Search,
        not: bool,
        text: Box<str>,
        inside: Box<Node>,
    },
    OneOf {
        property: usize,
        not: bool,
        /// Ascending.
        texts: Box<[Box<str>]>,
    },
}

/// Values of the expression's properties in one message; `None` for those it does not have.
type Given<'a> = SmallVec<[Option<Cow<'a, str>>; 8]>;

impl Tree {
    /// Whether a message with these properties is wanted. What is null or an error is not.
    pub fn matches<'a>(&self, properties: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> bool {
        let mut given: Given<'_> = SmallVec::from_elem(None, self.names.len());
        for (name, value) in properties {
            let known = self.names.iter().position(|known| known.as_bytes() == name);
            if let Some(at) = known {
                given[at] = Some(String::from_utf8_lossy(value));
            }
        }
        matches!(self.root.value(&given), Ok(Value::Bool(true)))
    }
}

impl Node {
    /// The value, if it is written in the expression.
    pub fn constant(&self) -> Option<Value<'_>> {
        match self {
            Node::Constant(constant) => Some(constant.value()),
            _ => None,
        }
    }

    /// Whether it can only be true, false or null.
    pub fn is_truth(&self) -> bool {
        match self {
            Node::Constant(constant) => matches!(constant.value(), Value::Bool(_) | Value::Null),
            Node::Property(_) | Node::Negated(_) => false,
            _ => true,
        }
    }

    /// Whether it has parts of its own.
    pub fn is_compound(&self) -> bool {
        !matches!(self, Node::Constant(_) | Node::Property(_))
    }

    fn value<'a>(&'a self, given: &'a Given<'_>) -> Result<Value<'a>, Failed> {
        Ok(match self {
            Node::Constant(constant) => constant.value(),
            Node::Property(at) => given[*at].as_deref().map_or(Value::Null, Value::Text),
            Node::Negated(node) => node.value(given)?.negated(),
            Node::Not(node) => truth(node.truth(given)?.map(|truth| !truth)),
            Node::Cast(node) => match node.value(given)? {
                Value::Null => Value::Null,
                Value::Bool(truth) => Value::Bool(truth),
                _ => Value::Bool(false),
            },
            Node::And(sides) => truth(decide(sides, given, false)?),
            Node::Or(sides) => truth(decide(sides, given, true)?),
            Node::Equal(sides) => {
                let left = sides.0.value(given)?;
                truth(left.equals(sides.1.value(given)?)?)
            }
            Node::Ordered(order, sides) => ordered(*order, sides, given)?,
            Node::Search {
                search,
                not,
                text,
                inside,
            } => Value::Bool(found(*search, *not, text, inside.as_ref(), given)?),
            Node::OneOf {
                property,
                not,
                texts,
            } => match &given[*property] {
                None => Value::Null,
                Some(value) => {
                    let is_in = texts.binary_search_by(|text| (**text).cmp(value)).is_ok();
                    Value::Bool(is_in != *not)
                }
            },
        })
    }

    /// The value of what [is a truth](Self::is_truth).
    fn truth(&self, given: &Given<'_>) -> Result<Option<bool>, Failed> {
        match self.value(given)? {
            Value::Bool(truth) => Ok(Some(truth)),
            Value::Null => Ok(None),
            _ => Err(Failed),
        }
    }
}

fn truth(value: Option<bool>) -> Value<'static> {
    value.map_or(Value::Null, Value::Bool)
}

/// `AND` and `OR`: the first side that is `decisive` is the answer, else null on any side is.
fn decide(sides: &[Node], given: &Given<'_>, decisive: bool) -> Result<Option<bool>, Failed> {
    let mut answer = Some(!decisive);
    for side in sides {
        match side.truth(given)? {
            Some(value) if value == decisive => return Ok(Some(decisive)),
            Some(_) => {}
            None => answer = None,
        }
    }
    Ok(answer)
}

/// The right side is not looked at if the left one is null.
fn ordered<'a>(
    order: Order,
    (left, right): &'a (Node, Node),
    given: &'a Given<'_>,
) -> Result<Value<'a>, Failed> {
    let left = left.value(given)?;
    if left.is_null() {
        return Ok(Value::Null);
    }
    let found = left.order(right.value(given)?)?;
    let holds = |found: Ordering| match order {
        Order::Greater => found.is_gt(),
        Order::GreaterOrEqual => found.is_ge(),
        Order::Less => found.is_lt(),
        Order::LessOrEqual => found.is_le(),
    };
    Ok(truth(found.map(holds)))
}

/// Never null: a search in what is no string, or for nothing, is false, with `NOT` as well.
fn found(
    search: Search,
    not: bool,
    text: &str,
    inside: &Node,
    given: &Given<'_>,
) -> Result<bool, Failed> {
    if text.is_empty() {
        return Ok(false);
    }
    let Value::Text(inside) = inside.value(given)? else {
        return Ok(false);
    };
    let found = match search {
        Search::Contains => inside.contains(text),
        Search::StartsWith => inside.starts_with(text),
        Search::EndsWith => inside.ends_with(text),
    };
    Ok(found != not)
}

impl Constant {
    fn value(&self) -> Value<'_> {
        match self {
            Constant::Plain(value) => *value,
            Constant::Text(text) => Value::Text(text),
        }
    }
}

impl From<Value<'static>> for Constant {
    fn from(value: Value<'static>) -> Self {
        Constant::Plain(value)
    }
}

impl From<Box<str>> for Constant {
    fn from(text: Box<str>) -> Self {
        Constant::Text(text)
    }
}
