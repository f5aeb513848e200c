//! The schema of `Provider` documents: the description language.

use serde_json::{Value, json};

use super::super::provider::{
    ABOUT_CHARS_MAX, ALPHABET_MAX, CALLS, CLASSES, CONFIDENCES, ENCODINGS, EXAMPLES_MAX, KINDS, LIFECYCLES, MEANINGS, METHODS, OUTCOMES,
    OWN_HEADERS, PATTERN_LENGTH_MAX, PREFIX_LENGTH_MAX, RESERVED, RULES_MAX, SHAPE_CONFIDENCES, SLOTS_MAX, SOURCE_CHARS_MAX,
    STEP_LENGTH_MAX, STEPS_MAX, TEMPLATE_LENGTH_MAX, TITLE_CHARS_MAX, USAGES,
};
use super::super::values::ENVIRONMENTS;
use super::{described, object, one_of, words};
use crate::domain::ids::FieldName;
use crate::domain::launch::{Check, ITEMS_MAX};
use crate::domain::recipe::LENGTH_MAX;

/// Holes are `{name}` or `{field:name}`.
const TEMPLATE: &str = r"^([^{}]|\{[a-z_]+\}|\{field:[a-z][a-z0-9_]*\})*$";

pub(super) fn spec() -> Value {
    let text = json!({"$ref": "#/$defs/text"});
    let duration = json!({"$ref": "#/$defs/duration"});
    let header = json!({"$ref": "#/$defs/header"});
    let base = json!({"$ref": "#/$defs/base"});
    let mut environment = object(
        &[],
        json!({
            "base": described("https; plain http on loopback only. Without it the configuration names it under `providers`.", base.clone()),
            "aliases": {"description": "Further base URLs of the same environment.", "type": "array", "items": base},
            "token": described("Where the token call goes, if elsewhere.", base),
        }),
    );
    environment["dependentRequired"] = json!({"aliases": ["base"], "token": ["base"]});
    let quota = object(
        &["calls", "per"],
        json!({"calls": {"type": "integer", "minimum": 1, "maximum": 1_000_000}, "per": described("The time that they are counted over.", duration.clone())}),
    );
    let fact = object(&["about", "source", "confidence"], json!({"about": text, "source": text, "confidence": words(&CONFIDENCES)}));
    let mut spec = object(
        &["title", "lifecycle", "fields"],
        json!({
            "title": described("What people call the provider.", text.clone()),
            "retired": {"description": "Nothing new is enrolled, checks still work. [false]", "type": "boolean"},
            "lifecycle": {"description": "How keys come and go: `pairs`, several live at once; `rotate`, the provider ends the old secret after the overlap; `replace`, the old one dies at once; `manual`, a person brings each one; `generated`, we make the values.", "enum": LIFECYCLES.map(|(word, _)| word)},
            "slots": {"description": "How many keys an account has at most, disabled ones included; with `lifecycle: pairs` and a list.",
                "type": "integer", "minimum": 2, "maximum": SLOTS_MAX},
            "signs": described("How a credential of this provider signs for those that it administers.", json!({"$ref": "#/$defs/signature"})),
            "environments": by_environment(1, environment),
            "variables": {"description": "A value is the default; without one each credential gives its own.", "type": "object",
                "propertyNames": {"pattern": "^[a-z_]{1,63}$", "not": {"enum": RESERVED}},
                "additionalProperties": {"anyOf": [{"$ref": "#/$defs/name"}, {"type": "null"}]}},
            "fields": {"description": "What a credential consists of.", "type": "object",
                "propertyNames": {"pattern": FieldName::PATTERN}, "additionalProperties": field()},
            "calls": calls(),
            "manual": described("What a person does, with `lifecycle: manual`.", manual()),
            "timing": object(&[], json!({
                "propagation": described("How long a fresh key may still be refused. [min(120s, overlap)]", duration.clone()),
                "tokensOutlive": described("How long access tokens outlive their key.", duration.clone()),
                "manualLead": described("How long a person takes.", duration.clone()),
                "soak": described("How long a disabled key is kept before it is removed. [min(1h, maxAge/20)]", duration.clone()),
                "overlap": described("How long old and new may both work, with `lifecycle: rotate`; `default` where a create can't ask.",
                    object(&[], json!({"min": duration, "default": duration, "max": duration}))),
            })),
            "limits": object(&[], json!({
                "quota": quota,
                "share": {"description": "Our part of the quota. [50%]", "type": "string", "pattern": "^0*([1-9][0-9]?|100)%$"},
                "limitHeader": header, "remainingHeader": header, "resetHeader": header,
            })),
            "examples": examples(),
            "facts": {"description": "Where each part is known from.", "type": "array", "items": fact},
            "goLive": go_live(),
        }),
    );
    spec["allOf"] = by_lifecycle();
    spec
}

/// What each way of coming and going asks for, and what it leaves no room for.
fn by_lifecycle() -> Value {
    let lives = |word: &str| json!({"properties": {"lifecycle": {"const": word}}, "required": ["lifecycle"]});
    let one_secret = json!({"properties": {"lifecycle": {"enum": ["rotate", "replace", "promote"]}}, "required": ["lifecycle"]});
    let create = |part: Value| json!({"properties": {"calls": {"properties": {"create": part}}}});
    json!([
        // One secret: the key stays, and is neither listed nor revoked.
        {
            "if": one_secret,
            "then": {"properties": {"calls": {"properties": {"list": false, "disable": false, "revoke": false, "create": {"properties": {"keyId": false}}}}}},
            "else": create(json!({"required": ["keyId"]})),
        },
        // What a call ends follows from the order of two secrets: all calls for that, or none.
        {
            "if": lives("promote"),
            "then": {"required": ["calls"], "properties": {"calls": {"required": ["create", "promote", "cancel"]}}},
            "else": {"properties": {"calls": {"properties": {"promote": false, "cancel": false}}}},
        },
        {"if": lives("rotate"), "else": create(json!({"properties": {"previousExpiresAt": false}}))},
        {
            "if": lives("manual"),
            "then": {"properties": {"calls": {"properties": {"create": false, "list": false, "disable": false, "revoke": false}}}},
            "else": {"properties": {"manual": false}},
        },
        // All fields are made here and nobody is asked, or none is and there is a provider.
        {
            "if": lives("generated"),
            "then": {"properties": {"environments": false, "calls": false, "fields": {"additionalProperties": {"required": ["generate"]}}}},
            "else": {"required": ["environments"], "properties": {"fields": {"additionalProperties": {"properties": {"generate": false}}}}},
        },
    ])
}

fn go_live() -> Value {
    let checks: Vec<&str> = Check::ALL.iter().map(|check| check.as_str()).collect();
    let line = |least: u32, most: usize| json!({"type": ["string", "number"], "minLength": least, "maxLength": most, "pattern": r"^[^\x00-\x1f\x7f]*$"});
    let mut item = object(
        &["id", "title", "source", "confidence"],
        json!({
            "id": described("What a sign-off names; each once.", json!({"$ref": "#/$defs/name"})),
            "title": line(1, TITLE_CHARS_MAX),
            "about": described("What is asked for.", line(0, ABOUT_CHARS_MAX)),
            "check": {"description": "What the daemon judges by itself.", "enum": checks},
            "confirm": {"description": "Only a person can tell.", "const": "person"},
            "source": line(1, SOURCE_CHARS_MAX),
            "confidence": words(&CONFIDENCES),
        }),
    );
    item["oneOf"] = json!([{"required": ["check"]}, {"required": ["confirm"]}]);
    described("What its going-live list asks for.", json!({"type": "array", "maxItems": ITEMS_MAX, "items": item}))
}

fn by_environment(at_least: u32, schema: Value) -> Value {
    let both = ENVIRONMENTS.map(|(word, _)| (word.to_owned(), schema.clone()));
    let mut object = object(&[], Value::Object(both.into_iter().collect()));
    object["minProperties"] = at_least.into();
    object
}

fn field() -> Value {
    let pattern = json!({"$ref": "#/$defs/pattern"});
    let unmarked = object(&["pattern", "unless"], json!({"pattern": pattern, "unless": {"$ref": "#/$defs/environment"}}));
    let shape = object(&["pattern", "confidence"], json!({"pattern": pattern, "confidence": words(&SHAPE_CONFIDENCES)}));
    let claimed = json!({"type": "array", "items": {"type": ["string", "number", "boolean"]}});
    let mut claims = object(&["claim"], json!({"claim": {"$ref": "#/$defs/pointer"}, "sandbox": claimed, "production": claimed}));
    claims["anyOf"] = json!([{"required": ["sandbox"]}, {"required": ["production"]}]);
    let mut field = object(
        &["class"],
        json!({
            "class": described("`management` authorises changes of the credential itself and is never served.", words(&CLASSES)),
            "bound": {"description": "One value belongs to one environment and one credential. [true, for public: false]", "type": "boolean"},
            "served": {"description": "Whether applications get it. [true, for management: false]", "type": "boolean"},
            "patterns": described("What tells the values of one environment from those of the other; `unless` where no mark is the mark.",
                by_environment(0, json!({"anyOf": [pattern, unmarked]}))),
            "shape": described("What all values look like. Where that is documented, others are refused.", shape),
            "lookAlikes": {"description": "Values of other providers that fit the patterns, too: they tell nothing.", "type": "object",
                "propertyNames": {"pattern": "^[A-Za-z0-9 .,&-]{1,63}$"}, "additionalProperties": pattern},
            "jwt": described("The claim that names the environment: read, never verified.", claims),
            "address": {"description": "The value is a base URL, and is judged by where it lies. [false]", "type": "boolean"},
            "use": described("What applications do with it: `verify` gives them the previous one too. [sign]", words(&USAGES)),
            "is": described("It has the value of this other field.", json!({"$ref": "#/$defs/field"})),
            "with": described("It changes whenever this other field does.", json!({"$ref": "#/$defs/field"})),
            "generate": described("How we make it, with `lifecycle: generated`.", recipe()),
        }),
    );
    field["if"] = json!({"properties": {"class": {"const": "management"}}, "required": ["class"]});
    field["then"] = json!({"properties": {"served": {"const": false}}});
    field
}

fn manual() -> Value {
    let step = json!({"description": "One line; holes are {name}: variables, credential, environment, old_version, old_issued_at.",
        "allOf": [{"$ref": "#/$defs/template"}, {"maxLength": STEP_LENGTH_MAX, "pattern": r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"}]});
    let steps = json!({"type": "array", "maxItems": STEPS_MAX, "items": step});
    let mut manual = object(
        &[],
        json!({
            "create": described("How a new key is made.", steps.clone()),
            "remove": described("How the old one is removed.", steps),
            "replaces": {"description": "The old key dies when the new one is made. [false]", "type": "boolean"},
        }),
    );
    manual["not"] = json!({"properties": {"replaces": {"const": true}, "remove": {"minItems": 1}}, "required": ["replaces", "remove"]});
    manual
}

fn recipe() -> Value {
    let graphic = |least: usize, most: usize| format!("^[!-~]{{{least},{most}}}$");
    let mut recipe = object(
        &["length"],
        json!({
            "length": {"description": "Random bytes with an encoding, characters with an alphabet; 128 bits of chance at least.",
                "type": "integer", "minimum": 1, "maximum": LENGTH_MAX},
            "encoding": words(&ENCODINGS),
            "alphabet": {"description": "Printable ASCII, each character once.", "type": ["string", "number"], "pattern": graphic(2, ALPHABET_MAX)},
            "prefix": {"description": "Stands before the random part.", "type": ["string", "number"], "pattern": graphic(0, PREFIX_LENGTH_MAX)},
        }),
    );
    recipe["oneOf"] = json!([{"required": ["encoding"]}, {"required": ["alphabet"]}]);
    recipe
}

fn calls() -> Value {
    let pointer = json!({"$ref": "#/$defs/pointer"});
    let mut probe = json!({
        "harmless": {"description": "It moves no money and counts as no failed login.", "const": true},
        "otherHost": {"description": "Only `false` can be done yet.", "const": false},
    });
    let proves = json!({"provesEnvironment": {"description": "A living key here proves the environment. [false]", "type": "boolean"}});
    probe["provesEnvironment"] = proves["provesEnvironment"].clone();
    let mut token = proves;
    token["accessToken"] = described("Where the access token stands.", pointer.clone());
    let values = json!({"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/text"}});
    let paging = object(
        &["more", "parameter", "cursor"],
        json!({
            "more": pointer,
            "parameter": {"$ref": "#/$defs/text"},
            "cursor": {"anyOf": [pointer, {"type": "array", "minItems": 1, "items": pointer}]},
        }),
    );
    let administered = json!({"$ref": "#/$defs/administered"});
    let own = json!({"$ref": "#/$defs/signature"});
    let create = json!({
        "authentication": administered,
        "keyId": pointer, "issuedAt": pointer, "expiresAt": pointer, "previousExpiresAt": pointer,
        "fields": {"type": "object", "propertyNames": {"pattern": FieldName::PATTERN}, "additionalProperties": pointer},
        "idempotencyHeaders": {"type": "array", "items": {"$ref": "#/$defs/header"}},
    });
    let list = json!({
        "authentication": administered,
        "items": pointer, "keyId": pointer, "marker": pointer, "issuedAt": pointer, "expiresAt": pointer,
        "alive": object(&["pointer", "values"], json!({"pointer": pointer, "values": values})),
        "paging": paging,
    });
    object(
        &[],
        json!({
            "token": call(&["accessToken"], token),
            "probe": call(&["harmless"], probe),
            "create": call(&["fields"], create),
            "list": call(&["items", "keyId"], list),
            "disable": call(&[], json!({"authentication": administered})),
            "revoke": call(&[], json!({"authentication": administered})),
            "promote": call(&[], json!({"authentication": own, "urlField": false})),
            "cancel": call(&[], json!({"authentication": own, "urlField": false})),
        }),
    )
}

/// Held against the description by `check`.
fn examples() -> Value {
    let kinds = KINDS.map(|(kind, _)| kind).join("|");
    let holes = format!(r"^([^{{}}]|\{{({kinds}):[1-9][0-9]{{0,2}}\}})*$");
    let token = object(&["jwt"], json!({"jwt": {"not": {"type": "null"}}}));
    let value = json!({"anyOf": [{"type": ["string", "number"], "pattern": holes}, token]});
    let name = json!({"$ref": "#/$defs/name"});
    let values = object(
        &["fields", "environment", "verdict"],
        json!({
            "fields": {"description": "Holes such as {alnum:24} are filled, always alike.", "type": "object", "additionalProperties": value},
            "variables": {"type": "object", "additionalProperties": name},
            "environment": {"$ref": "#/$defs/environment"},
            "verdict": words(&OUTCOMES),
        }),
    );
    let reply = object(
        &["call", "status", "means"],
        json!({"call": words(&CALLS), "status": {"type": "integer", "minimum": 100, "maximum": 599}, "body": {"not": {"type": "null"}}, "means": words(&MEANINGS)}),
    );
    let array = |items| json!({"type": "array", "maxItems": EXAMPLES_MAX, "items": items});
    described(
        "What values and replies mean: held against the description.",
        object(&[], json!({"values": array(values), "replies": array(reply)})),
    )
}

/// What all calls share, and what this one has of its own.
fn call(required: &[&str], own: Value) -> Value {
    let templates = json!({"type": "object", "additionalProperties": {"$ref": "#/$defs/template"}});
    let mut properties = json!({
        "method": words(&METHODS),
        "path": described("Below the base URL.", json!({"$ref": "#/$defs/path"})),
        "urlField": described("The management field that holds the whole address.", json!({"$ref": "#/$defs/field"})),
        "query": templates,
        "headers": {"type": "object", "propertyNames": {"$ref": "#/$defs/header"},
            "additionalProperties": {"allOf": [{"$ref": "#/$defs/template"}, {"pattern": "^[ -~]*$"}]}},
        "authentication": {"$ref": "#/$defs/authentication"},
        "body": one_of("A form, or any JSON whose texts are templates.", json!({"form": templates, "json": {"not": {"type": "null"}}})),
        "rules": {"description": "The first that fits decides.", "type": "array", "maxItems": RULES_MAX, "items": {"$ref": "#/$defs/rule"}},
    });
    if let (Some(all), Value::Object(own)) = (properties.as_object_mut(), own) {
        all.extend(own);
    }
    let mut call = object(&[&["method", "authentication"], required].concat(), properties);
    call["oneOf"] = json!([{"required": ["path"]}, {"required": ["urlField"]}]);
    call["if"] = json!({"properties": {"method": {"const": "GET"}}, "required": ["method"]});
    call["then"] = json!({"properties": {"body": false}});
    call
}

pub(super) fn shared() -> [(&'static str, Value); 11] {
    let field = json!({"$ref": "#/$defs/field"});
    let value = json!({"type": ["string", "number", "boolean"]});
    let statuses = json!({"description": "Without it the rule fits all.", "type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 100, "maximum": 599}});
    let equals = object(&["pointer", "value"], json!({"pointer": {"$ref": "#/$defs/pointer"}, "value": value}));
    let basic = object(&["username", "password"], json!({"username": field, "password": field}));
    let by_own_field = one_of("By fields of the credential.", json!({"basic": basic, "bearer": field}));
    let by_field = one_of("By fields of the credential.", json!({"basic": basic, "bearer": field, "management": field}));
    let own_headers: Vec<String> = OWN_HEADERS.iter().map(|name| in_any_case(name)).collect();
    [
        ("field", json!({"description": "The name of a described field.", "type": "string", "pattern": FieldName::PATTERN})),
        (
            "template",
            json!({"description": "Holes are {name} and {field:name}.", "type": ["string", "number"], "maxLength": TEMPLATE_LENGTH_MAX, "pattern": TEMPLATE}),
        ),
        (
            "base",
            json!({"type": "string", "allOf": [
                {"pattern": TEMPLATE},
                {"pattern": r"^([Hh][Tt][Tt][Pp][Ss]://|[Hh][Tt][Tt][Pp]://(localhost|127\.[0-9.]+|\[::1\])([:/]|$))[!-\x22$->@-\x5b\x5d-~]*$"},
            ]}),
        ),
        (
            "path",
            json!({"type": "string", "maxLength": TEMPLATE_LENGTH_MAX, "allOf": [
                {"pattern": TEMPLATE},
                {"pattern": r"^/[!-\x22$&->@-\x5b\x5d-~]*$"},
                {"not": {"pattern": r"//|/\.\.?(/|$)"}},
            ]}),
        ),
        (
            "pattern",
            json!({"description": "A regular expression from ^ to $.", "type": "string", "maxLength": PATTERN_LENGTH_MAX, "pattern": r"^\^[\s\S]*\$$"}),
        ),
        (
            "header",
            json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,63}$", "not": {"pattern": format!("^({})$", own_headers.join("|"))}}),
        ),
        (
            "pointer",
            json!({"description": "A JSON pointer (RFC 6901).", "type": "string", "maxLength": 256, "pattern": "^(/([^~]|~[01])*)?$"}),
        ),
        ("authentication", json!({"oneOf": [{"enum": ["token", "open"]}, by_field.clone()]})),
        ("administered", json!({"oneOf": [{"enum": ["token", "open", "administrator"]}, by_field]})),
        ("signature", json!({"oneOf": [{"const": "token"}, by_own_field]})),
        ("rule", object(&["means"], json!({"status": statuses, "equals": equals, "means": words(&MEANINGS)}))),
    ]
}

fn in_any_case(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphabetic() { format!("[{}{c}]", c.to_ascii_uppercase()) } else { c.to_string() };
    name.chars().map(letter).collect()
}
