//! Conditions of compilation.

use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, Lit, Meta, Token};

/// Returns whether what has these attributes is compiled: on Linux, with all features, not for a test
/// nor for fuzzing.
pub(crate) fn applies(attributes: &[Attribute]) -> bool {
    conditions(attributes).all(|condition| holds(&condition))
}

/// The features that what has these attributes is compiled with only.
pub(crate) fn features(attributes: &[Attribute]) -> Vec<String> {
    let mut found = Vec::new();
    for condition in conditions(attributes) {
        if let Meta::NameValue(pair) = &condition
            && pair.path.is_ident("feature")
            && let Expr::Lit(ExprLit { lit: Lit::Str(name), .. }) = &pair.value
        {
            found.push(name.value());
        }
    }
    found
}

fn conditions(attributes: &[Attribute]) -> impl Iterator<Item = Meta> {
    attributes.iter().filter(|each| each.path().is_ident("cfg")).filter_map(|each| {
        let Meta::List(list) = &each.meta else { return None };
        list.parse_args().ok()
    })
}

fn holds(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => !(path.is_ident("test") || path.is_ident("fuzzing")),
        Meta::NameValue(pair) if pair.path.is_ident("target_os") => {
            matches!(&pair.value, Expr::Lit(ExprLit { lit: Lit::Str(os), .. }) if os.value() == "linux")
        }
        Meta::NameValue(_) => true,
        Meta::List(list) => {
            let parse = Punctuated::<Meta, Token![,]>::parse_terminated;
            let Ok(inner) = list.parse_args_with(parse) else { return true };
            let mut inner = inner.iter().map(holds);
            if list.path.is_ident("not") {
                !inner.all(|each| each)
            } else if list.path.is_ident("any") {
                inner.any(|each| each)
            } else {
                inner.all(|each| each)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use syn::{ItemFn, parse_quote};

    use super::*;

    #[test]
    fn what_is_for_tests_or_another_system_does_not_apply() {
        let both: [(ItemFn, bool); 8] = [
            (
                parse_quote!(
                    fn f() {}
                ),
                true,
            ),
            (
                parse_quote!(
                    #[cfg(test)]
                    fn f() {}
                ),
                false,
            ),
            (
                parse_quote!(
                    #[cfg(not(test))]
                    fn f() {}
                ),
                true,
            ),
            (
                parse_quote!(
                    #[cfg(any(fuzzing, test))]
                    fn f() {}
                ),
                false,
            ),
            (
                parse_quote!(
                    #[cfg(all(feature = "tls", test))]
                    fn f() {}
                ),
                false,
            ),
            (
                parse_quote!(
                    #[cfg(feature = "tls")]
                    fn f() {}
                ),
                true,
            ),
            (
                parse_quote!(
                    #[cfg(not(target_os = "linux"))]
                    fn f() {}
                ),
                false,
            ),
            (
                parse_quote!(
                    #[cfg(feature = "tls")]
                    #[cfg(test)]
                    fn f() {}
                ),
                false,
            ),
        ];
        for (item, expected) in both {
            assert_eq!(applies(&item.attrs), expected, "{item:?}");
        }
    }

    #[test]
    fn features_are_told() {
        let item: ItemFn = parse_quote!(
            #[must_use]
            #[cfg(feature = "tls")]
            fn f() {}
        );
        assert_eq!(features(&item.attrs), ["tls"]);
    }
}
