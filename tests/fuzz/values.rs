//! Material as the store keeps it, and what is sealed: nothing but what was written opens, and it opens as what it was.

use keywright::domain::material::{Material, Secret};
use keywright::sealing::{Context, Keyring, Sealed};

use crate::harness::json::Json;
use crate::harness::{JSON, Judged, Target, Verdict, broken};

fn material() -> Target {
    let plain: Material = [("client_id", "dinie_ci_test_1"), ("client_secret", "Zq7RkW2m\"\\\n\u{1}é\u{1f980}")]
        .map(|(field, value)| (field.parse().unwrap(), Secret::from(value.to_owned())))
        .into_iter()
        .collect();
    let long = [("a".parse().unwrap(), Secret::from("x".repeat(3_000)))].into_iter().collect::<Material>();
    let corpus = [&plain, &Material::default(), &long].map(|material| material.to_json().expose().to_vec());
    Target::new("material", corpus.into(), &[JSON, &["client_id", "\"client_id\":\"x\",", "Client", "a_b", "\\u00e9", "\\n"]])
}

fn judge_material(read: impl Fn(&[u8]) -> Option<Material>, input: &[u8]) -> Judged {
    let Some(material) = read(input) else { return Ok(Verdict::Refused) };
    let json = Json::read(input).ok_or("taken, and it is no JSON")?;
    let members = json.strict(&[]).ok_or("taken, and it is no object, or a member stands twice")?;
    let same = members.iter().all(|(name, value)| {
        let kept = name.parse().ok().and_then(|name| material.get(&name));
        matches!((value, kept), (Json::Text(text), Some(kept)) if kept.expose() == text.as_bytes())
    });
    if !same || members.len() != material.len() {
        return broken("what was read isn't what stands there");
    }
    let written = material.to_json();
    match Material::from_json(written.expose()) {
        Ok(again) if again.same_as(&material) && again.to_json().expose() == written.expose() => Ok(Verdict::Accepted),
        _ => broken("it doesn't come back as it was"),
    }
}

#[test]
fn fuzz_material() {
    material().run(|input| judge_material(|bytes| Material::from_json(bytes).ok(), input));
}

#[test]
fn fuzz_material_notices_faults() {
    let lenient = |bytes: &[u8]| -> Option<Material> {
        let map: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes).ok()?;
        map.iter().map(|(name, value)| Some((name.parse().ok()?, Secret::from(value.as_str()?.to_owned())))).collect()
    };
    material().notices("the last of two members counts", |input| judge_material(lenient, input));
    material().notices("control characters are dropped", |input| {
        let clean: Vec<u8> = input.iter().copied().filter(|byte| *byte >= b' ').collect();
        judge_material(|_| Material::from_json(&clean).ok(), input)
    });
}

const CONTEXT: Context<'static> = Context { table: "versions/production", name: "dinie-production", version: "v2", part: "served" };

/// Sealed for one place, and for its neighbours: only the first may open there.
fn sealed(keyring: &Keyring) -> (Target, Vec<(Sealed, Secret)>) {
    let seal = |context: &Context<'_>, value: &str| {
        let value = Secret::from(value.to_owned());
        (keyring.seal(context, &value).unwrap(), value)
    };
    let ours = vec![seal(&CONTEXT, "{\"client_secret\":\"one\"}"), seal(&CONTEXT, "{\"client_secret\":\"two\"}"), seal(&CONTEXT, "")];
    let others = [
        Context { version: "v1", ..CONTEXT },
        Context { part: "management", ..CONTEXT },
        Context { table: "versions/sandbox", ..CONTEXT },
        Context { name: "dinie-productio", version: "nv2", ..CONTEXT },
    ];
    let corpus = ours.iter().map(|(sealed, _)| sealed.0.clone());
    let others = others.iter().map(|context| seal(context, "{\"client_secret\":\"other\"}").0.0);
    (Target::new("sealed", corpus.chain(others).collect(), &[]), ours)
}

fn judge_sealed(unseal: impl Fn(&Sealed) -> Option<Secret>, ours: &[(Sealed, Secret)], input: &[u8]) -> Judged {
    match unseal(&Sealed(input.to_vec())) {
        None if ours.iter().any(|(sealed, _)| sealed.0 == input) => broken("what was sealed doesn't open"),
        None => Ok(Verdict::Refused),
        Some(value) if ours.iter().any(|(sealed, plain)| sealed.0 == input && plain.same_as(&value)) => Ok(Verdict::Accepted),
        Some(_) => broken("what was altered, or sealed for another place, opens"),
    }
}

#[test]
fn fuzz_sealed() {
    let keyring = Keyring::ephemeral().unwrap();
    let (target, ours) = sealed(&keyring);
    target.run(|input| judge_sealed(|sealed| keyring.unseal(&CONTEXT, sealed).ok(), &ours, input));
}

#[test]
fn fuzz_sealed_notices_faults() {
    let keyring = Keyring::ephemeral().unwrap();
    let (target, ours) = sealed(&keyring);
    target.notices("the version isn't bound", |input| {
        let open = |sealed: &Sealed| {
            let mut versions = ["v2", "v1"].iter().map(|version| keyring.unseal(&Context { version, ..CONTEXT }, sealed));
            versions.find_map(Result::ok)
        };
        judge_sealed(open, &ours, input)
    });
    target.notices("bytes behind the end are passed over", |input| {
        let open = |sealed: &Sealed| {
            let whole = ours.iter().find(|(ours, _)| sealed.0.starts_with(&ours.0)).map_or(sealed, |(ours, _)| ours);
            keyring.unseal(&CONTEXT, whole).ok()
        };
        judge_sealed(open, &ours, input)
    });
}
