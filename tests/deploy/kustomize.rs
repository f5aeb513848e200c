//! As much of kustomize as `deploy/` uses, refusing all else. The fixture was rendered by kustomize 5.5; with `KEYWRIGHT_TEST_KUSTOMIZE`
//! (`kubectl`, or `kustomize`) the program itself is asked, for the fixture and for everything in `deploy/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{APPLIED, list, repository, sha256_hex, title};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Kustomization {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    patches: Vec<Patch>,
    #[serde(default)]
    config_map_generator: Vec<Generator>,
    #[serde(default)]
    labels: Vec<Labels>,
    #[serde(default)]
    images: Vec<Image>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    path: String,
    target: Option<Target>,
    #[serde(default)]
    options: PatchOptions,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    group: String,
    version: String,
    kind: String,
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PatchOptions {
    #[serde(default)]
    allow_kind_change: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Generator {
    name: String,
    namespace: String,
    files: Vec<String>,
    #[serde(default)]
    behavior: String,
    #[serde(default)]
    options: GeneratorOptions,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GeneratorOptions {
    #[serde(default)]
    disable_name_suffix_hash: bool,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Labels {
    pairs: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Image {
    name: String,
    new_name: String,
    new_tag: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    op: String,
    path: String,
    value: Value,
}

/// An object on its way, and whether its name gets the digest of its content.
struct Draft {
    object: Value,
    hashed: bool,
}

/// What comes out of the kustomization in this folder.
pub(crate) fn render(folder: &Path) -> Vec<Value> {
    let drafts = accumulate(folder);
    let mut renamed = BTreeMap::new();
    let mut objects = Vec::new();
    for Draft { mut object, hashed } in drafts {
        if hashed {
            let name = text(&object["metadata"]["name"]);
            let full = format!("{name}-{}", hash_of(&object));
            renamed.insert((text(&object["metadata"]["namespace"]), name), full.clone());
            object["metadata"]["name"] = json!(full);
        }
        objects.push(object);
    }
    for object in &mut objects {
        let namespace = text(&object["metadata"]["namespace"]);
        if let Some(volumes) = object.pointer_mut("/spec/template/spec/volumes").and_then(Value::as_array_mut) {
            volumes.iter_mut().for_each(|volume| refer(volume, &namespace, &renamed));
        }
    }
    objects
}

fn refer(volume: &mut Value, namespace: &str, renamed: &BTreeMap<(String, String), String>) {
    let Some(name) = volume.pointer_mut("/configMap/name") else { return };
    if let Some(full) = renamed.get(&(namespace.to_owned(), text(name))) {
        *name = json!(full);
    }
}

fn accumulate(folder: &Path) -> Vec<Draft> {
    let file = folder.join("kustomization.yaml");
    let wanted: Kustomization = serde_saphyr::from_str(&read(&file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!((wanted.api_version.as_str(), wanted.kind.as_str()), ("kustomize.config.k8s.io/v1beta1", "Kustomization"));
    let mut drafts = Vec::new();
    for resource in &wanted.resources {
        let path = folder.join(resource);
        if path.is_dir() {
            drafts.extend(accumulate(&path));
        } else {
            drafts.extend(documents(&path).into_iter().map(|object| Draft { object, hashed: false }));
        }
    }
    wanted.config_map_generator.iter().for_each(|generator| generate(folder, generator, &mut drafts));
    wanted.patches.iter().for_each(|patch| apply(folder, patch, &mut drafts));
    for draft in &mut drafts {
        for (name, value) in wanted.labels.iter().flat_map(|labels| &labels.pairs) {
            draft.object["metadata"]["labels"][name] = json!(value);
        }
        wanted.images.iter().for_each(|image| set_image(&mut draft.object, image));
    }
    drafts
}

/// The objects of one file.
pub(crate) fn documents(file: &Path) -> Vec<Value> {
    let read: Vec<Value> = serde_saphyr::from_multiple(&read(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert!(read.iter().all(|object| object["kind"].is_string()), "{}", file.display());
    read
}

fn generate(folder: &Path, generator: &Generator, drafts: &mut Vec<Draft>) {
    let files = generator.files.iter().map(|file| {
        let path = folder.join(file);
        (path.file_name().unwrap().to_str().unwrap().to_owned(), json!(read(&path)))
    });
    let mut metadata = json!({"name": generator.name, "namespace": generator.namespace});
    if !generator.options.labels.is_empty() {
        metadata["labels"] = json!(generator.options.labels);
    }
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files.collect::<Map<_, _>>()});
    let made = Draft { object, hashed: !generator.options.disable_name_suffix_hash };
    let same = |draft: &Draft| title(&draft.object) == title(&made.object);
    match generator.behavior.as_str() {
        "" => {
            assert!(!drafts.iter().any(same), "{} is there already", title(&made.object));
            drafts.push(made);
        }
        "replace" => {
            let before = drafts.iter_mut().find(|draft| same(draft)).expect("there is one to replace");
            before.object["data"] = made.object["data"].clone();
        }
        other => panic!("`behavior: {other}` isn't used here"),
    }
}

fn apply(folder: &Path, patch: &Patch, drafts: &mut [Draft]) {
    let path = folder.join(&patch.path);
    let content: Value = serde_saphyr::from_str(&read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (api, kind, name) = match &patch.target {
        Some(target) => (format!("{}/{}", target.group, target.version), target.kind.clone(), target.name.clone()),
        None => (text(&content["apiVersion"]), text(&content["kind"]), text(&content["metadata"]["name"])),
    };
    let fits = |draft: &&mut Draft| {
        let object = &draft.object;
        object["apiVersion"] == api.as_str() && object["kind"] == kind.as_str() && object["metadata"]["name"] == name.as_str()
    };
    let mut found: Vec<&mut Draft> = drafts.iter_mut().filter(fits).collect();
    assert_eq!(found.len(), 1, "{}: it patches one object", path.display());
    let object = &mut found[0].object;
    if content.is_array() {
        let operations: Vec<Operation> = serde_json::from_value(content).unwrap();
        operations.iter().for_each(|operation| operate(object, operation));
    } else {
        merge(object, &content, "");
    }
    assert!(patch.options.allow_kind_change || object["kind"] == kind.as_str(), "{}: it changes the kind", path.display());
}

/// RFC 6902, its `add` and `replace` of members.
fn operate(object: &mut Value, operation: &Operation) {
    let (parent, last) = operation.path.rsplit_once('/').expect("a path");
    let parent = object.pointer_mut(parent).and_then(Value::as_object_mut).unwrap_or_else(|| panic!("nothing at {}", operation.path));
    match operation.op.as_str() {
        "replace" => assert!(parent.contains_key(last), "{} is there to be replaced", operation.path),
        "add" => {}
        other => panic!("`op: {other}` isn't used here"),
    }
    parent.insert(last.to_owned(), operation.value.clone());
}

/// By what the elements of a list are told apart when it is patched; other lists are replaced.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "volumes" | "env" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        _ => None,
    }
}

fn merge(object: &mut Value, patch: &Value, field: &str) {
    match (&mut *object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (name, value) in patch {
                assert!(!name.starts_with('$') && !value.is_null(), "`{name}` of a patch isn't used here");
                match object.get_mut(name) {
                    Some(before) => merge(before, value, name),
                    None => drop(object.insert(name.clone(), value.clone())),
                }
            }
        }
        (Value::Array(before), Value::Array(patch)) if merge_key(field).is_some() => {
            let key = merge_key(field).unwrap();
            // What is new stands first, as kustomize puts it.
            let mut new = Vec::new();
            for element in patch {
                match before.iter_mut().find(|other| other[key] == element[key]) {
                    Some(other) => merge(other, element, ""),
                    None => new.push(element.clone()),
                }
            }
            before.splice(0..0, new);
        }
        _ => *object = patch.clone(),
    }
}

fn set_image(object: &mut Value, image: &Image) {
    let Some(containers) = object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut) else { return };
    for container in containers {
        let named = text(&container["image"]);
        if named == image.name || named.starts_with(&format!("{}:", image.name)) {
            container["image"] = json!(format!("{}:{}", image.new_name, image.new_tag));
        }
    }
}

/// The end of a generated name: SHA-256 of kind, an empty name, and data, in letters that make no word.
fn hash_of(object: &Value) -> String {
    let encoded = json!({"data": object["data"], "kind": "ConfigMap", "name": ""}).to_string();
    let encoded = encoded.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    let letter = |digit: char| match digit {
        '0' => 'g',
        '1' => 'h',
        '3' => 'k',
        'a' => 'm',
        'e' => 't',
        other => other,
    };
    sha256_hex(encoded.as_bytes()).chars().take(10).map(letter).collect()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn by_title(objects: Vec<Value>) -> BTreeMap<String, Value> {
    objects.into_iter().map(|object| (title(&object), object)).collect()
}

fn asked(program: &str, folder: &Path) -> Vec<Value> {
    let word = if program.ends_with("kubectl") { "kustomize" } else { "build" };
    let output = Command::new(program).arg(word).arg(folder).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_saphyr::from_multiple(std::str::from_utf8(&output.stdout).unwrap()).unwrap()
}

#[test]
fn what_is_rendered_is_what_kustomize_renders() {
    let fixture = repository().join("tests/deploy/fixture");
    let expected = by_title(documents(&fixture.join("expected.yaml")));
    let ours = by_title(render(&fixture.join("top")));
    assert_eq!(ours, expected);
    assert!(list(&ours["StatefulSet here/it"]["spec"]["template"]["spec"]["volumes"]).len() == 3, "the fixture uses what there is");
    if let Ok(program) = std::env::var("KEYWRIGHT_TEST_KUSTOMIZE") {
        assert_eq!(by_title(asked(&program, &fixture.join("top"))), expected, "the fixture, by {program}");
        for folder in APPLIED.map(|folder| repository().join("deploy").join(folder)) {
            assert_eq!(by_title(render(&folder)), by_title(asked(&program, &folder)), "{}", folder.display());
        }
    }
}

#[test]
fn what_isnt_understood_is_refused() {
    for bad in ["resources: []\nnamePrefix: x\n", "generators: []\n", "configMapGenerator: [{name: a, namespace: b, literals: [a=b]}]\n"] {
        let folder = tempfile::tempdir().unwrap();
        let whole = format!("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n{bad}");
        fs::write(folder.path().join("kustomization.yaml"), whole).unwrap();
        assert!(std::panic::catch_unwind(|| render(folder.path())).is_err(), "{bad}");
    }
}
