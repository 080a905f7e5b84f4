//! Limits on the shape of a client's protocol. Pure, and without recursion.
//!
//! The schema library parses, compares, copies and drops schemas recursively, and so does our own
//! code: along the nesting of a schema, and along the references from one named type to the next.
//! It copies a type for each of its aliases and for each type around it. All of that is bounded here
//! before the library sees a schema, and whatever decoding does not need (documentation, defaults,
//! attributes) is taken out: the library copies that as well. So are the logical types that our own
//! protocol does not have: their values are then those of the types below them, as the specification
//! has it ("Logical Types": an implementation that does not know one must ignore it).

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use serde_json::{Map, Value};

/// Maximum length of a protocol's text, in bytes.
pub(crate) const MAX_TEXT_BYTES: usize = 256 << 10;
/// Maximum number of named types and messages of a protocol.
pub(crate) const MAX_NAMES: usize = 1000;
/// Maximum number of schemas that lie within each other, a reference counting as the type it names.
const MAX_DEPTH: usize = 64;
/// Maximum number of schemas as they are written: of types, fields, elements, variants of unions,
/// references and symbols in all.
const MAX_NODES: usize = 8192;
/// Maximum number of schemas of all requests that we know, with each reference replaced by its type.
const MAX_EXPANDED_NODES: usize = 4096;
/// Maximum number of schemas that the library copies while it parses: those of a named type once,
/// once more for each of its aliases, and once more for each named type that it lies in.
const MAX_COPIED_NODES: usize = 32_768;
/// Maximum number of aliases of types and fields in all.
const MAX_ALIASES: usize = 64;
/// Maximum number of unions of a single type, for each of which the library writes to the log.
const MAX_SINGLE_UNIONS: usize = 16;
/// Maximum length of the name of a type, with its namespace, a field or a symbol, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Takes out of `definitions`, each of a named type, what decoding does not need, and makes all names
/// in them absolute. The last `requests` of them are what is to be decoded.
///
/// # Errors
///
/// For people: which limit is exceeded, or what is no schema.
pub(crate) fn apply(definitions: &mut [Value], requests: usize) -> Result<(), String> {
    let mut survey = Survey::default();
    let mut roots = Vec::with_capacity(definitions.len());
    for definition in definitions {
        roots.push(survey.types.len());
        let is_definition = matches!(type_of(definition), Some("record" | "enum" | "fixed"));
        if !is_definition {
            return Err("one of its `types` is no record, error, enum or fixed".to_owned());
        }
        survey.pending.push(Pending { schema: definition, namespace: None, owner: None, level: 1 });
        while let Some(next) = survey.pending.pop() {
            survey.visit(next)?;
        }
    }
    survey.check(&roots[roots.len() - requests..])
}

fn type_of(schema: &Value) -> Option<&str> {
    schema.as_object()?.get("type")?.as_str()
}

/// A schema that is still to be looked at.
struct Pending<'v> {
    schema: &'v mut Value,
    namespace: Option<Rc<str>>,
    /// The named type that it belongs to.
    owner: Option<usize>,
    /// How deep it lies in that, the type itself being at 1.
    level: usize,
}

#[derive(Default)]
struct Survey<'v> {
    pending: Vec<Pending<'v>>,
    types: Vec<Type>,
    names: HashMap<String, usize>,
    aliases: Vec<(String, usize)>,
    /// From a type to what it refers to, by name.
    references: Vec<(usize, Reference)>,
    nodes: usize,
    field_aliases: usize,
    single_unions: usize,
}

struct Reference {
    level: usize,
    name: String,
}

/// A named type.
#[derive(Default)]
struct Type {
    /// The type that it is written in.
    owner: Option<usize>,
    aliases: usize,
    /// Its own schemas, without those of the types within it.
    nodes: usize,
    /// How deep its own schemas lie.
    depth: usize,
    /// The types in it, written there or referred to, with how deep they lie.
    uses: Vec<(usize, usize)>,
}

impl<'v> Survey<'v> {
    fn visit(&mut self, at: Pending<'v>) -> Result<(), String> {
        let Pending { schema, namespace, owner, level } = at;
        if level > MAX_DEPTH {
            return Err(too_deep());
        }
        match schema {
            Value::String(name) => self.named(name, namespace, owner, level),
            Value::Array(variants) => {
                self.count(owner, level, 1)?;
                match variants.len() {
                    0 => return Err("a union in it is empty".to_owned()),
                    1 => self.single_unions += 1,
                    _ => {}
                }
                if self.single_unions > MAX_SINGLE_UNIONS {
                    let most = MAX_SINGLE_UNIONS;
                    return Err(format!("it has more than {most} unions of one type only"));
                }
                let below = variants.iter_mut().map(|schema| Pending {
                    schema,
                    namespace: namespace.clone(),
                    owner,
                    level: level + 1,
                });
                self.pending.extend(below);
                Ok(())
            }
            Value::Object(members) => self.object(members, namespace, owner, level),
            _ => Err("a type in it is no string, object or array".to_owned()),
        }
    }

    fn object(
        &mut self,
        members: &'v mut Map<String, Value>,
        namespace: Option<Rc<str>>,
        owner: Option<usize>,
        level: usize,
    ) -> Result<(), String> {
        let kind = match members.get("type") {
            Some(Value::String(kind)) => kind.clone(),
            Some(Value::Object(_) | Value::Array(_)) => String::new(),
            _ => return Err("a schema in it has no `type`".to_owned()),
        };
        let (kept, below): (&[&str], _) = match kind.as_str() {
            "record" => return self.record(members, namespace, owner, level),
            "enum" | "fixed" => {
                self.define(members, namespace.as_ref(), owner, level)?;
                return self.leaf(members, &kind);
            }
            "array" => (&["type", "items"], "items"),
            "map" => (&["type", "values"], "values"),
            _ => (&["type", "logicalType"], "type"),
        };
        let logical = members.get("logicalType");
        let is_known = kind == "long" && logical.is_some_and(|name| name == "timestamp-millis");
        members.retain(|name, _| kept.contains(&&name[..]) && (is_known || name != "logicalType"));
        match members.get_mut(below) {
            Some(Value::String(name)) if below == "type" => {
                self.named(name, namespace, owner, level)
            }
            Some(schema) => {
                self.count(owner, level, 1)?;
                self.pending.push(Pending { schema, namespace, owner, level: level + 1 });
                Ok(())
            }
            None => Err(format!("a schema of the type `{kind}` in it has no `{below}`")),
        }
    }

    fn record(
        &mut self,
        members: &'v mut Map<String, Value>,
        namespace: Option<Rc<str>>,
        owner: Option<usize>,
        level: usize,
    ) -> Result<(), String> {
        let (index, namespace) = self.define(members, namespace.as_ref(), owner, level)?;
        members.retain(|name, _| matches!(&name[..], "type" | "name" | "aliases" | "fields"));
        let Some(Value::Array(fields)) = members.get_mut("fields") else {
            return Err("a record in it has no array of `fields`".to_owned());
        };
        for field in fields {
            let Value::Object(field) = field else {
                return Err("a field of a record in it is no object".to_owned());
            };
            field.retain(|name, _| matches!(&name[..], "type" | "name" | "aliases"));
            name_within(field.get("name").and_then(Value::as_str).unwrap_or_default())?;
            for alias in field.get("aliases").and_then(Value::as_array).into_iter().flatten() {
                name_within(alias.as_str().unwrap_or_default())?;
                self.field_aliases += 1;
            }
            let Some(schema) = field.get_mut("type") else {
                return Err("a field of a record in it has no `type`".to_owned());
            };
            self.pending.push(Pending {
                schema,
                namespace: namespace.clone(),
                owner: Some(index),
                level: 2,
            });
        }
        self.check_aliases()
    }

    /// An enum or a fixed, once it is defined.
    fn leaf(&mut self, members: &mut Map<String, Value>, kind: &str) -> Result<(), String> {
        let content = if kind == "enum" { "symbols" } else { "size" };
        members
            .retain(|name, _| matches!(&name[..], "type" | "name" | "aliases") || name == content);
        match members.get(content) {
            Some(Value::Array(symbols)) if kind == "enum" => {
                self.count(Some(self.types.len() - 1), 1, symbols.len())?;
                symbols
                    .iter()
                    .try_for_each(|symbol| name_within(symbol.as_str().unwrap_or_default()))
            }
            Some(Value::Number(_)) if kind == "fixed" => Ok(()),
            _ => Err(format!("one of the type `{kind}` in it has no `{content}`")),
        }
    }

    /// Makes a new type of this definition; gives its place and the namespace of what lies in it.
    fn define(
        &mut self,
        members: &mut Map<String, Value>,
        namespace: Option<&Rc<str>>,
        owner: Option<usize>,
        level: usize,
    ) -> Result<(usize, Option<Rc<str>>), String> {
        let Some(Value::String(name)) = members.get("name") else {
            return Err("a type in it has no name".to_owned());
        };
        let own = members.get("namespace").and_then(Value::as_str);
        let name = full_name(name, own.or(namespace.map(|namespace| &**namespace)))?;
        let inner = name.rsplit_once('.').map(|(namespace, _)| Rc::<str>::from(namespace));
        members.insert("name".to_owned(), absolute(&name));
        members.remove("namespace");
        let index = self.types.len();
        if index >= MAX_NAMES {
            return Err(too_many_names());
        }
        let mut count = 0;
        if let Some(Value::Array(aliases)) = members.get_mut("aliases") {
            for alias in aliases {
                let Value::String(alias) = alias else { continue };
                let full = full_name(alias, inner.as_deref())?;
                *alias = absolute_text(&full);
                count += 1;
                self.aliases.push((full, index));
            }
        }
        self.check_aliases()?;
        if let Some(owner) = owner {
            self.types[owner].uses.push((index, level));
        }
        self.types.push(Type { owner, aliases: count, ..Type::default() });
        self.count(Some(index), 1, 1)?;
        if self.names.insert(name.clone(), index).is_some() {
            return Err(format!("it defines the type `{name}` twice"));
        }
        Ok((index, inner))
    }

    /// A primitive type, or a reference.
    fn named(
        &mut self,
        name: &mut String,
        namespace: Option<Rc<str>>,
        owner: Option<usize>,
        level: usize,
    ) -> Result<(), String> {
        if is_primitive(name) {
            return self.count(owner, level, 1);
        }
        let full = full_name(name, namespace.as_deref())?;
        *name = absolute_text(&full);
        self.count(owner, level, 1)?;
        if let Some(owner) = owner {
            self.references.push((owner, Reference { level, name: full }));
        }
        Ok(())
    }

    fn count(&mut self, owner: Option<usize>, level: usize, nodes: usize) -> Result<(), String> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(format!("it has more than {MAX_NODES} fields, references and symbols"));
        }
        if let Some(owner) = owner {
            let owner = &mut self.types[owner];
            owner.nodes += nodes;
            owner.depth = owner.depth.max(level);
        }
        Ok(())
    }

    fn check_aliases(&self) -> Result<(), String> {
        if self.aliases.len() + self.field_aliases > MAX_ALIASES {
            return Err(format!("it has more than {MAX_ALIASES} aliases"));
        }
        Ok(())
    }

    /// What takes all types together.
    fn check(mut self, requests: &[usize]) -> Result<(), String> {
        for (alias, index) in self.aliases.drain(..) {
            if *self.names.entry(alias.clone()).or_insert(index) != index {
                return Err(format!("its alias `{alias}` is another type's name"));
            }
        }
        for (from, Reference { level, name }) in self.references.drain(..) {
            let Some(&to) = self.names.get(&name) else {
                return Err(format!("it refers to the type `{name}`, which it does not define"));
            };
            self.types[from].uses.push((to, level));
        }
        let mut written: Vec<usize> = self.types.iter().map(|each| each.nodes).collect();
        let mut copied = 0;
        // What lies in a type was found after it.
        for (index, each) in self.types.iter().enumerate().rev() {
            if let Some(owner) = each.owner {
                written[owner] += written[index];
            }
            copied += written[index] * (1 + each.aliases);
        }
        if copied > MAX_COPIED_NODES {
            return Err(format!(
                "its types lie in each other, or have aliases, as more than {MAX_COPIED_NODES} \
                 fields, references and symbols"
            ));
        }
        let extents = extents(&self.types);
        if extents.iter().any(|extent| extent.depth > MAX_DEPTH) {
            return Err(too_deep());
        }
        let expanded =
            requests.iter().fold(0_usize, |sum, &index| sum.saturating_add(extents[index].nodes));
        if expanded > MAX_EXPANDED_NODES {
            return Err(format!(
                "its requests take more than {MAX_EXPANDED_NODES} fields and symbols with each \
                 reference replaced by its type"
            ));
        }
        Ok(())
    }
}

/// A type with each reference replaced by what it names.
#[derive(Debug, Default, Clone, Copy)]
struct Extent {
    depth: usize,
    nodes: usize,
}

impl Extent {
    /// With types in it.
    fn of(own: &Type, all: &[Self]) -> Self {
        own.uses.iter().fold(Self { depth: own.depth, nodes: own.nodes }, |sum, &(to, level)| {
            Self {
                depth: sum.depth.max((level - 1).saturating_add(all[to].depth)),
                nodes: sum.nodes.saturating_add(all[to].nodes),
            }
        })
    }
}

/// The extent of each type. Those that refer to themselves, by way of others or not, and what lies
/// between such types are taken for one, which is as deep as all of them together: no way through them
/// that meets no type twice is longer.
fn extents(types: &[Type]) -> Vec<Extent> {
    let mut extents = vec![Extent::default(); types.len()];
    let mut users = vec![Vec::new(); types.len()];
    for (index, each) in types.iter().enumerate() {
        each.uses.iter().for_each(|&(to, _)| users[to].push(index));
    }
    let uses = |index: usize| types[index].uses.iter().map(|&(to, _)| to);
    // From those that use none, and of the rest from those that none uses.
    let below = peel(types.len(), |index| types[index].uses.len(), |index| users[index].clone());
    for &index in &below {
        extents[index] = Extent::of(&types[index], &extents);
    }
    let mut is_done = vec![false; types.len()];
    below.iter().for_each(|&index| is_done[index] = true);
    let above = peel(types.len(), |index| users[index].len(), |index| uses(index).collect());
    let above: Vec<usize> = above.into_iter().filter(|&index| !is_done[index]).collect();
    above.iter().for_each(|&index| is_done[index] = true);
    let circle: Vec<usize> = (0..types.len()).filter(|&index| !is_done[index]).collect();
    // Its own have no extent yet.
    let parts = circle.iter().map(|&index| Extent::of(&types[index], &extents));
    let whole = parts.fold(Extent::default(), |sum, part| Extent {
        depth: sum.depth.saturating_add(part.depth),
        nodes: sum.nodes.saturating_add(part.nodes),
    });
    circle.iter().for_each(|&index| extents[index] = whole);
    for &index in above.iter().rev() {
        extents[index] = Extent::of(&types[index], &extents);
    }
    extents
}

/// Those of `0..count` that are freed one after the other, each once nothing holds it any more.
fn peel(
    count: usize,
    held_by: impl Fn(usize) -> usize,
    holds: impl Fn(usize) -> Vec<usize>,
) -> Vec<usize> {
    let mut held: Vec<usize> = (0..count).map(held_by).collect();
    let mut free: VecDeque<usize> = (0..count).filter(|&index| held[index] == 0).collect();
    let mut order = Vec::with_capacity(count);
    while let Some(index) = free.pop_front() {
        order.push(index);
        for below in holds(index) {
            held[below] -= 1;
            if held[below] == 0 {
                free.push_back(below);
            }
        }
    }
    order
}

/// A name with its namespace (specification 1.12, "Names").
fn full_name(name: &str, namespace: Option<&str>) -> Result<String, String> {
    let namespace = namespace.filter(|namespace| !namespace.is_empty());
    let full = match (name.strip_prefix('.'), namespace) {
        (Some(name), _) if !name.contains('.') => name.to_owned(),
        (None, Some(namespace)) if !name.contains('.') => {
            name_within(namespace)?;
            format!("{namespace}.{name}")
        }
        _ => name.to_owned(),
    };
    name_within(&full)?;
    Ok(full)
}

/// The same so that it means that wherever it stands.
fn absolute_text(full: &str) -> String {
    if full.contains('.') { full.to_owned() } else { format!(".{full}") }
}

fn absolute(full: &str) -> Value {
    Value::String(absolute_text(full))
}

fn name_within(name: &str) -> Result<(), String> {
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("a name in it is longer than {MAX_NAME_BYTES} bytes"));
    }
    Ok(())
}

fn is_primitive(name: &str) -> bool {
    matches!(name, "null" | "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string")
}

pub(crate) fn too_many_names() -> String {
    format!("it declares more than {MAX_NAMES} types and messages")
}

fn too_deep() -> String {
    format!("its types lie in each other, or refer to each other, more than {MAX_DEPTH} deep")
}

#[cfg(test)]
mod tests;
