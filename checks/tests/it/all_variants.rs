//! A list of all variants of an enum has every variant.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use syn::{Expr, Fields, ImplItem, Item, Type};

/// Enums with their variants that hold nothing, and lists named `ALL` with their elements.
#[derive(Default)]
struct Found {
    enums: BTreeMap<String, Vec<String>>,
    lists: Vec<(String, Vec<String>)>,
}

impl Found {
    fn read(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                self.read(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a file");
                let file = syn::parse_file(&text).expect("Rust");
                self.take(file.items);
            }
        }
    }

    fn take(&mut self, items: Vec<Item>) {
        for item in items {
            match item {
                Item::Enum(item) => {
                    let variants = item.variants.iter();
                    let units = variants.filter(|variant| matches!(variant.fields, Fields::Unit));
                    let names = units.map(|variant| variant.ident.to_string()).collect();
                    self.enums.insert(item.ident.to_string(), names);
                }
                Item::Impl(item) => {
                    let Some(name) = last_name(&item.self_ty) else { continue };
                    for item in item.items {
                        if let ImplItem::Const(item) = item
                            && item.ident == "ALL"
                            && let Some(elements) = elements(&item.expr)
                        {
                            self.lists.push((name.clone(), elements));
                        }
                    }
                }
                Item::Mod(item) => {
                    self.take(item.content.map_or_else(Vec::new, |(_, items)| items))
                }
                _ => {}
            }
        }
    }
}

fn last_name(of: &Type) -> Option<String> {
    let Type::Path(path) = of else { return None };
    path.path.segments.last().map(|segment| segment.ident.to_string())
}

/// The last names of the paths in an array; `None` for another expression.
fn elements(list: &Expr) -> Option<Vec<String>> {
    let list = if let Expr::Reference(reference) = list { &*reference.expr } else { list };
    let Expr::Array(array) = list else { return None };
    let names = array.elems.iter().map(|element| match element {
        Expr::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        _ => None,
    });
    names.collect()
}

#[test]
fn each_list_of_all_has_every_variant() {
    let mut checked = Vec::new();
    for package in crate::PUBLISHED {
        let mut found = Found::default();
        found.read(&checks::workspace().join(package).join("src"));
        for (name, elements) in &found.lists {
            let Some(variants) = found.enums.get(name) else { continue };
            assert_eq!(elements, variants, "{name}::ALL in {package}");
            checked.push(name.clone());
        }
    }
    for name in ["BatchState", "ErrorKind", "LimitKind", "Reason", "Scope", "StepState"] {
        assert!(checked.iter().any(|checked| checked == name), "{name} is not among {checked:?}");
    }
}
