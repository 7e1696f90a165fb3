//! Reading JSON so that nothing in it goes unseen: every key is taken or reported, and every error says where.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use crate::ProfileError;

/// An object in the making of a profile: keys are taken out one by one, what is left is unknown.
pub(crate) struct Object<'a> {
    path: String,
    map: Map<String, Value>,
    places: &'a Places,
}

impl<'a> Object<'a> {
    pub(crate) fn new(path: &str, map: Map<String, Value>, places: &'a Places) -> Self {
        Self { path: path.to_owned(), map, places }
    }

    /// Dotted path of one of its keys.
    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// An error about one of its keys.
    pub(crate) fn error(&self, key: &str, problem: impl Into<String>) -> ProfileError {
        let path = self.path_of(key);
        ProfileError::Key { line: self.places.line(&path), key: path, problem: problem.into() }
    }

    pub(crate) fn string(&mut self, key: &str) -> Result<Option<String>, ProfileError> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.error(key, format!("must be a string, not {}", kind(&other)))),
        }
    }

    pub(crate) fn required(&mut self, key: &str, what: &str) -> Result<String, ProfileError> {
        match self.string(key)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) | None => Err(self.error(key, format!("required: {what}"))),
        }
    }

    pub(crate) fn bool(&mut self, key: &str) -> Result<Option<bool>, ProfileError> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.error(key, format!("must be true or false, not {}", kind(&other)))),
        }
    }

    pub(crate) fn number(&mut self, key: &str, low: u64, high: u64) -> Result<Option<u64>, ProfileError> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) if (low..=high).contains(&number) => Ok(Some(number)),
                Some(number) => Err(self.error(key, format!("{number} is not allowed; {low} to {high}"))),
                None => Err(self.error(key, format!("must be a whole number from {low} to {high}"))),
            },
        }
    }

    /// An array of strings, or one string with spaces between.
    pub(crate) fn list(&mut self, key: &str) -> Result<Vec<String>, ProfileError> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(text.split_whitespace().map(str::to_owned).collect()),
            Some(Value::Array(values)) => values
                .into_iter()
                .map(|value| match value {
                    Value::String(text) => Ok(text),
                    other => Err(self.error(key, format!("must hold strings, not {}", kind(&other)))),
                })
                .collect(),
            Some(other) => Err(self.error(key, format!("must be a list, not {}", kind(&other)))),
        }
    }

    pub(crate) fn object(&mut self, key: &str) -> Result<Option<Object<'a>>, ProfileError> {
        match self.map.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Object::new(&self.path_of(key), map, self.places))),
            Some(other) => Err(self.error(key, format!("must be an object, not {}", kind(&other)))),
        }
    }

    /// Takes a key whatever its value; true when it was there.
    pub(crate) fn present(&mut self, key: &str) -> bool {
        self.map.remove(key).is_some_and(|value| !value.is_null())
    }

    /// Warns of every key that was not taken.
    pub(crate) fn finish(self, warnings: &mut Vec<String>) {
        for key in self.map.keys() {
            let path = self.path_of(key);
            let line = self.places.line(&path).map(|line| format!("line {line}: ")).unwrap_or_default();
            warnings.push(format!("{line}`{path}`: this key is not known and has no effect"));
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// On which line each key stands, by dotted path.
#[derive(Debug, Default)]
pub(crate) struct Places {
    lines: HashMap<String, usize>,
    twice: BTreeMap<String, usize>,
}

impl Places {
    /// Finds every key of a text that is known to be JSON. Keys inside arrays are not looked for.
    pub(crate) fn of(text: &str) -> Self {
        let mut places = Self::default();
        let mut line = 1;
        // One entry per open bracket: the key that is being given a value, `None` in arrays.
        let mut open: Vec<Option<String>> = Vec::new();
        let mut last: Option<(String, usize)> = None;
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\n' => line += 1,
                '"' => last = Some((string(&mut chars), line)),
                ':' => {
                    if let (Some(slot), Some((key, at))) = (open.last_mut(), last.take()) {
                        *slot = Some(key);
                        if let Some(path) = path(&open)
                            && places.lines.insert(path.clone(), at).is_some()
                        {
                            places.twice.insert(path, at);
                        }
                    }
                }
                '{' => open.push(Some(String::new())),
                '[' => open.push(None),
                '}' | ']' => {
                    open.pop();
                }
                _ => {}
            }
        }
        places
    }

    pub(crate) fn line(&self, path: &str) -> Option<usize> {
        self.lines.get(path).copied()
    }

    /// A key that stands twice in one object: which of the two would count is anybody's guess.
    pub(crate) fn check_once(&self) -> Result<(), ProfileError> {
        match self.twice.iter().next() {
            None => Ok(()),
            Some((key, line)) => Err(ProfileError::Key {
                key: key.clone(),
                line: Some(*line),
                problem: "stands here for the second time".to_owned(),
            }),
        }
    }
}

fn path(open: &[Option<String>]) -> Option<String> {
    let keys: Option<Vec<&str>> = open.iter().map(Option::as_deref).collect();
    keys.map(|keys| keys.join("."))
}

/// The rest of a string whose opening quote is read, with escapes left as they are but for the quote's sake.
fn string(chars: &mut std::str::Chars<'_>) -> String {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => {
                text.push(c);
                text.extend(chars.next());
            }
            other => text.push(other),
        }
    }
    text
}
