//! The profile reference (`docs/profile-reference.md`), written from the schema so that it cannot go stale.

use std::fmt::Write;

use serde_json::Value;

use crate::limits::{REFUSED, WITHOUT_EFFECT};
use crate::native::json_schema;

/// Sections in the order in which a reader wants them.
const SECTIONS: [&str; 9] =
    ["gateway", "auth", "crypto", "address", "tunnel", "dns", "timing", "paths", "multi_point_sa"];

const HEAD: &str = "\
# Profile reference

A profile is one TOML file. Unknown keys are errors; every key but the required ones has a default.
`docs/profile.schema.json` is the same as a JSON Schema. This page is written from it.

The smallest profile:

```toml
version = 1
name = \"Example Corp\"

[gateway]
address = \"vpn.example.com\"

[auth]
method = \"eap-mschapv2\"
```

Secrets (`psk`, `password`, `private_key`, `pkcs12`, `pkcs12_password`) may stand in the file that is imported; import
moves them to the secret store, and `ropewalk export` leaves them out.

";

/// The reference as Markdown.
#[must_use]
pub fn reference_markdown() -> String {
    let schema: Value = serde_json::from_str(&json_schema()).unwrap_or_default();
    let mut text = String::from(HEAD);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "## Top level\n");
    table(&mut text, &schema, &schema, &|key| !SECTIONS.contains(&key));
    for section in SECTIONS {
        let found = schema.pointer(&format!("/properties/{section}")).unwrap_or(&Value::Null);
        let described = found.get("description").and_then(Value::as_str).unwrap_or_default();
        let _ = writeln!(text, "\n## `[{section}]`\n\n{}\n", one_line(described));
        table(&mut text, &schema, resolve(&schema, found), &|_| true);
    }
    let _ = writeln!(
        text,
        "\n## Not in this version\n\nRefused at import, because the connection would be another one:\n"
    );
    for limit in REFUSED {
        let _ = writeln!(text, "- `{}`: {}", limit.key, limit.what);
    }
    let _ = writeln!(text, "- `auth.pkcs12`: a bundle (write certificate and key as PEM)");
    if !WITHOUT_EFFECT.is_empty() {
        let _ = writeln!(text, "\nAccepted with a warning, because it has no effect yet:\n");
    }
    for limit in WITHOUT_EFFECT {
        let _ = writeln!(text, "- `{}`", limit.key);
    }
    text
}

fn table(text: &mut String, schema: &Value, object: &Value, wanted: &dyn Fn(&str) -> bool) {
    let _ = writeln!(text, "| key | kind | default | meaning |\n| --- | --- | --- | --- |");
    let Some(properties) = object.get("properties").and_then(Value::as_object) else { return };
    let required: Vec<&str> = object
        .get("required")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    for (key, property) in properties.iter().filter(|(key, _)| wanted(key)) {
        let default = if required.contains(&key.as_str()) {
            "required".to_owned()
        } else {
            match property.get("default") {
                None | Some(Value::Null) => "-".to_owned(),
                Some(value) => default_of(value),
            }
        };
        let described = property.get("description").and_then(Value::as_str).unwrap_or_default();
        let _ =
            writeln!(text, "| `{key}` | {} | {default} | {} |", kind(schema, property), one_line(described));
    }
}

/// Follows a reference, also one that stands beside a description.
fn resolve<'a>(schema: &'a Value, value: &'a Value) -> &'a Value {
    let inner = value.pointer("/allOf/0").or_else(|| value.pointer("/anyOf/0")).unwrap_or(value);
    match inner.get("$ref").and_then(Value::as_str) {
        Some(path) => schema.pointer(path.trim_start_matches('#')).unwrap_or(inner),
        None => inner,
    }
}

fn kind(schema: &Value, property: &Value) -> String {
    let resolved = resolve(schema, property);
    if let Some(choices) = choices(resolved) {
        return choices;
    }
    let name = match resolved.get("type") {
        Some(Value::String(name)) => name.as_str(),
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or("")
        }
        _ => "",
    };
    match name {
        "array" => {
            let of = resolved.get("items").map(|items| kind(schema, items)).unwrap_or_default();
            format!("list of {of}")
        }
        "integer" => "number".to_owned(),
        "boolean" => "true or false".to_owned(),
        "object" => "table".to_owned(),
        other => other.to_owned(),
    }
}

/// The values of an enumeration, which schemars writes as `enum` or as `oneOf` with `const`.
fn choices(value: &Value) -> Option<String> {
    let plain = value.get("enum").and_then(Value::as_array).into_iter().flatten();
    let described = value.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<String> = plain
        .chain(described.flat_map(|one| one.get("const").or_else(|| one.pointer("/enum/0")).into_iter()))
        .filter_map(Value::as_str)
        .map(|name| format!("`\"{name}\"`"))
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn default_of(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(ToString::to_string).collect();
            format!("`[{}]`", items.join(", "))
        }
        other => format!("`{other}`"),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
