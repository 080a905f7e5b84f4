//! What functions return.

use syn::{GenericArgument, PathArguments, ReturnType, Signature, Type, TypeParamBound};

/// Returns whether a function is asynchronous, or returns a future.
pub(crate) fn is_async(signature: &Signature) -> bool {
    signature.asyncness.is_some() || returned(&signature.output).is_some_and(is_future)
}

/// Returns whether a function returns a `Result`, at once or by its future.
pub(crate) fn is_fallible(signature: &Signature) -> bool {
    returned(&signature.output)
        .is_some_and(|output| is_result(output) || future_output(output).is_some_and(is_result))
}

fn returned(output: &ReturnType) -> Option<&Type> {
    match output {
        ReturnType::Default => None,
        ReturnType::Type(_, output) => Some(output),
    }
}

fn is_future(output: &Type) -> bool {
    future_output(output).is_some() || ends_in(output, "BoxFuture")
}

fn is_result(output: &Type) -> bool {
    ends_in(output, "Result")
}

fn ends_in(output: &Type, name: &str) -> bool {
    matches!(output, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}

/// The output of `impl Future`.
fn future_output(output: &Type) -> Option<&Type> {
    let Type::ImplTrait(output) = output else { return None };
    output.bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else { return None };
        let last = bound.path.segments.last().filter(|last| last.ident == "Future")?;
        let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
        arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::AssocType(each) if each.ident == "Output" => Some(&each.ty),
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use syn::{ItemFn, parse_quote};

    use super::*;

    #[test]
    fn futures_and_results_are_known() {
        let functions: [(ItemFn, bool, bool); 7] = [
            (
                parse_quote!(
                    async fn f() {}
                ),
                true,
                false,
            ),
            (
                parse_quote!(
                    async fn f() -> io::Result<()> {}
                ),
                true,
                true,
            ),
            (
                parse_quote!(
                    fn f() -> impl Future<Output = ()> + Send {}
                ),
                true,
                false,
            ),
            (
                parse_quote!(
                    fn f() -> impl Future<Output = io::Result<()>> {}
                ),
                true,
                true,
            ),
            (
                parse_quote!(
                    fn f() -> BoxFuture<'static, ()> {}
                ),
                true,
                false,
            ),
            (
                parse_quote!(
                    fn f() -> Result<(), E> {}
                ),
                false,
                true,
            ),
            (
                parse_quote!(
                    fn f() -> Option<Result<(), E>> {}
                ),
                false,
                false,
            ),
        ];
        for (function, future, result) in functions {
            assert_eq!(is_async(&function.sig), future, "{function:?}");
            assert_eq!(is_fallible(&function.sig), result, "{function:?}");
        }
    }
}
