//! Documents and the problems that they must get.
use super::*;
#[test]
fn x() {
    let p = read_folder(Path::new("policies/examples"), "2026-11-21T00:00:00Z".parse().unwrap());
    if let Err(e) = &p { panic!("{}", e.render(false)); }
    let src = Source { file: "x.yaml".into(), text: "apiVersion: keywright.dev/v1alpha1\nkind: RotationPolicy\nmetadata: {name: a}\nspec:\n  maxAge: 3x\n  foo: sekrit\n  overlap:\n  overlap: 1h\n---\nkind: [\n---\nkind: Credential\nspec: {provider: nope, environment: prod, rotation: a, path: hunter2aaaaaaaa}\nmetadata: {name: b}\n".into() };
    let e = parse(&[src], "2026-11-21T00:00:00Z".parse().unwrap()).unwrap_err();
    panic!("{}\n{e}\n{}", e.render(false), serde_json::to_string(&e).unwrap());
}
