//! One expression: parsed once, checked, and evaluated with values.

use std::collections::BTreeSet;
use std::sync::Arc;

use cel::Program;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use serde_json::Value;

use crate::cost::Bound;
use crate::patterns::{Literals, Pattern, Patterns};
use crate::rounds::{Rounds, count_rounds};
use crate::values::ROOTS;
use crate::{Error, MAX_LENGTH, MAX_OUTPUT, Values, cause, cost, functions, json, similar};

/// Stack for the parser and the evaluator, which need at most half of it: a debug build about 100 KiB for a bracket and 10 KiB
/// for an operator.
const STACK: usize = 16 << 20;
/// Most brackets within each other.
const MAX_BRACKETS: usize = 10;
/// Most words, constants, operators and brackets of an expression.
const MAX_TOKENS: usize = 400;
/// Most parts of an expression after its macros are expanded.
const MAX_PARTS: usize = 1000;
/// Most loops within each other.
const MAX_LOOPS: usize = 3;

#[derive(Debug, Clone)]
pub struct Expression {
    text: Arc<str>,
    /// Parts, with a count of the rounds of loops.
    program: Arc<IdedExpr>,
    literals: Arc<Literals>,
    references: References,
}

/// Values that an expression uses, so that only those are loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    pub inputs: BTreeSet<String>,
    pub steps: BTreeSet<String>,
    /// Whether steps are used in another way than by a name that stands in the expression, so that all may be meant.
    pub all_steps: bool,
    /// Whether `item` or `index` is used.
    pub item: bool,
    pub round: bool,
    pub previous: bool,
    /// Whether the description of the workflow is used.
    pub workflow: bool,
    /// Number of the expressions that use them. One with a large pattern counts as several.
    pub count: usize,
}

impl References {
    /// Adds those of another expression.
    pub fn merge(&mut self, other: &Self) {
        self.inputs.extend(other.inputs.iter().cloned());
        self.steps.extend(other.steps.iter().cloned());
        self.all_steps |= other.all_steps;
        self.item |= other.item;
        self.round |= other.round;
        self.previous |= other.previous;
        self.workflow |= other.workflow;
        self.count += other.count;
    }
}

impl Expression {
    /// Parses and checks an expression, which may stand in `${{ }}`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        on_stack(|| Self::parse_deeply(text))
    }

    fn parse_deeply(text: &str) -> Result<Self, Error> {
        let trimmed = text.trim();
        let inner = trimmed.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}"));
        let text = inner.unwrap_or(trimmed).trim();
        if text.len() > MAX_LENGTH {
            return Err(Error::TooLong(text.len()));
        }
        if is_too_deep(text) {
            return Err(Error::TooDeep);
        }
        let program = Program::compile(text).map_err(|errors| {
            let first = errors.errors.first();
            let place = first.map(|error| format!("{} (at character {})", error.msg, error.pos.1));
            Error::Syntax { expression: text.to_owned(), cause: cause(&place.unwrap_or_default()) }
        })?;
        let mut check = Check {
            text,
            references: References::default(),
            locals: Vec::new(),
            parts: 0,
            literals: Literals::new(),
        };
        check.visit(program.expression(), 0)?;
        let Check { references, literals, .. } = check;
        let mut program = program.expression().clone();
        count_rounds(&mut program);
        let (program, literals) = (Arc::new(program), Arc::new(literals));
        let mut parsed = Self { text: text.into(), program, literals, references };
        parsed.references.count =
            1 + usize::try_from(parsed.compiled() / cost::EVALUATION).unwrap_or(usize::MAX);
        Ok(parsed)
    }

    /// Returns the units that compiling its patterns has needed.
    fn compiled(&self) -> u64 {
        self.literals.values().map(|pattern| pattern.cost).sum()
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn references(&self) -> &References {
        &self.references
    }

    /// Returns the result as JSON.
    pub fn evaluate(&self, values: &Values) -> Result<Value, Error> {
        on_stack(|| self.evaluate_deeply(values))
    }

    fn evaluate_deeply(&self, values: &Values) -> Result<Value, Error> {
        let expression = || self.text.to_string();
        let Bound { cost, visits, patterns } = cost::bound(&self.program, &self.literals, &values.map);
        if cost > cost::MAX_COST {
            return Err(match values.spend(visits) {
                true => Error::TooCostly { expression: expression() },
                false => Error::Spent { expression: expression() },
            });
        }
        if !values.spend(cost + self.compiled() + cost::EVALUATION) {
            return Err(Error::Spent { expression: expression() });
        }
        let rounds = Rounds::new(cost);
        let mut context = functions::context(rounds.clone(), Patterns::new(&self.literals, patterns));
        let References { inputs, steps, all_steps, .. } = &self.references;
        let is_used = |name: &str| match name {
            // `inputs` itself has no name of its own.
            "steps" => *all_steps || !steps.is_empty(),
            "inputs" => !inputs.is_empty() || self.text.contains("inputs"),
            _ => true,
        };
        for (name, value) in values.map.iter().filter(|(name, _)| is_used(name)) {
            context.add_variable_from_value(name.as_str(), json::to_cel(value));
        }
        let failed = |text: String| Error::Evaluation { expression: expression(), cause: cause(&text) };
        let result = cel::Value::resolve(&self.program, &context);
        if rounds.are_exceeded() {
            return Err(Error::Rounds { expression: expression() });
        }
        let result = result.map_err(|error| failed(error.to_string()))?;
        let mut room = MAX_OUTPUT;
        json::from_cel(&result, &mut room).map_err(|error| match error {
            json::NoJson::TooLarge => Error::TooLarge { expression: expression() },
            json::NoJson::Type(found) => failed(format!("{found} has no JSON form")),
        })
    }

    /// Returns the result of a condition.
    pub fn evaluate_bool(&self, values: &Values) -> Result<bool, Error> {
        match self.evaluate(values)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(self.wrong_type(&other, "true or false")),
        }
    }

    /// Returns the result of an expression for a list.
    pub fn evaluate_list(&self, values: &Values) -> Result<Vec<Value>, Error> {
        match self.evaluate(values)? {
            Value::Array(list) => Ok(list),
            other => Err(self.wrong_type(&other, "a list")),
        }
    }

    fn wrong_type(&self, found: &Value, wanted: &'static str) -> Error {
        Error::Type { expression: self.text.to_string(), found: json::kind(found), wanted }
    }
}

/// Executes what parses or evaluates on a stack that suffices: a new one, which the system maps and unmaps, unless this one has half of it
/// left. What does so many times calls this before, so that they share one.
pub fn on_stack<T>(execute: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK / 2, STACK, execute)
}

/// Whether the parser and the evaluator, which recurse, could go too deep: counted before anything is parsed.
fn is_too_deep(text: &str) -> bool {
    let (mut brackets, mut prefixes, mut tokens) = (0_usize, 0_usize, 0_usize);
    let (mut quote, mut escaped, mut in_word) = (None, false, false);
    for c in text.chars() {
        let was_in_word = std::mem::replace(&mut in_word, false);
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => {
                quote = Some(c);
                tokens += 1;
            }
            (None, c) if c.is_alphanumeric() || c == '_' => {
                in_word = true;
                tokens += usize::from(!was_in_word);
            }
            (None, c) => {
                tokens += usize::from(!c.is_whitespace());
                match c {
                    '(' | '[' | '{' => brackets += 1,
                    ')' | ']' | '}' => brackets = brackets.saturating_sub(1),
                    '!' | '-' | '?' => prefixes += 1,
                    _ => {}
                }
            }
        }
        if brackets + prefixes / 2 > MAX_BRACKETS || tokens > MAX_TOKENS {
            return true;
        }
    }
    false
}

/// Visit of an expression before its first evaluation.
struct Check<'a> {
    text: &'a str,
    references: References,
    /// Variables of the macros around the place.
    locals: Vec<&'a str>,
    parts: usize,
    literals: Literals,
}

impl<'a> Check<'a> {
    fn unknown<'k>(&self, name: &str, known: impl IntoIterator<Item = &'k str>) -> Error {
        Error::Unknown {
            expression: self.text.to_owned(),
            name: name.to_owned(),
            similar: similar(name, known),
        }
    }

    fn visit(&mut self, expression: &'a IdedExpr, depth: usize) -> Result<(), Error> {
        // The parser bounds itself; what follows it recurses as deep, and visits the steps of loops more than once.
        self.parts += 1;
        if depth > MAX_TOKENS || self.parts > MAX_PARTS || self.locals.len() > 2 * MAX_LOOPS {
            return Err(Error::TooDeep);
        }
        let depth = depth + 1;
        match &expression.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => {
                if let Some(root) = self.root(&select.operand) {
                    self.member(root, &select.field);
                    return Ok(());
                }
                self.visit(&select.operand, depth)
            }
            Expr::Call(call) => {
                let is_operator = call.func_name.contains('_') || call.func_name.starts_with(['!', '-', '@']);
                if !is_operator && !functions::FUNCTIONS.contains(&call.func_name.as_str()) {
                    return Err(self.unknown(&call.func_name, functions::FUNCTIONS.iter().copied()));
                }
                if call.func_name == "_[_]"
                    && let [operand, index] = call.args.as_slice()
                    && let (Some(root), Expr::Literal(LiteralValue::String(field))) =
                        (self.root(operand), &index.expr)
                {
                    self.member(root, field.inner());
                    return Ok(());
                }
                self.pattern(call)?;
                call.target.iter().try_for_each(|target| self.visit(target, depth))?;
                call.args.iter().try_for_each(|argument| self.visit(argument, depth))
            }
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.visit(element, depth)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key, depth).and_then(|()| self.visit(&entry.value, depth))
                }
                EntryExpr::StructField(_) => Err(self.unknown("a message", [])),
            }),
            Expr::Comprehension(comprehension) => {
                self.visit(&comprehension.iter_range, depth)?;
                self.visit(&comprehension.accu_init, depth)?;
                let locals = self.locals.len();
                self.locals.extend([comprehension.iter_var.as_str(), comprehension.accu_var.as_str()]);
                self.locals.extend(comprehension.iter_var2.as_deref());
                self.visit(&comprehension.loop_cond, depth)?;
                self.visit(&comprehension.loop_step, depth)?;
                self.visit(&comprehension.result, depth)?;
                self.locals.truncate(locals);
                Ok(())
            }
            // The evaluator has no messages, and would panic.
            Expr::Struct(message) => Err(self.unknown(&message.type_name, [])),
            Expr::Unspecified => Err(self.unknown("an empty expression", [])),
        }
    }

    /// Compiles the pattern of a search, if it stands in the expression.
    fn pattern(&mut self, call: &'a CallExpr) -> Result<(), Error> {
        let argument = call.args.get(usize::from(call.target.is_none())).map(|argument| &argument.expr);
        let Some(Expr::Literal(LiteralValue::String(pattern))) = argument else { return Ok(()) };
        let pattern = pattern.inner();
        if call.func_name != "matches" || self.literals.contains_key(pattern) {
            return Ok(());
        }
        let compiled = Pattern::compile(pattern).map_err(|why| Error::Syntax {
            expression: self.text.to_owned(),
            cause: cause(&format!("pattern {pattern:?} {why}")),
        })?;
        self.literals.insert(pattern.to_owned(), compiled);
        Ok(())
    }

    /// Returns which of `inputs` and `steps` an expression is.
    fn root(&self, operand: &IdedExpr) -> Option<&'static str> {
        let Expr::Ident(name) = &operand.expr else { return None };
        let root = ["inputs", "steps"].into_iter().find(|root| root == name)?;
        (!self.locals.contains(&root)).then_some(root)
    }

    fn member(&mut self, root: &str, name: &str) {
        let names = if root == "steps" { &mut self.references.steps } else { &mut self.references.inputs };
        names.insert(name.to_owned());
    }

    fn name(&mut self, name: &'a str) -> Result<(), Error> {
        match name {
            _ if self.locals.contains(&name) => {}
            "steps" => self.references.all_steps = true,
            "item" | "index" => self.references.item = true,
            "round" => self.references.round = true,
            "previous" => self.references.previous = true,
            "workflow" => self.references.workflow = true,
            _ if ROOTS.contains(&name) => {}
            _ => return Err(self.unknown(name, ROOTS.iter().copied().chain(self.locals.iter().copied()))),
        }
        Ok(())
    }
}
