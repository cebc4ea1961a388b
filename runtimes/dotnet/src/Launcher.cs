// Starts the unmodified AWS client for a handler in a class library.
//
// The client as NuGet has it is a library; AWS's managed runtime has the same code with an entry point. This is that entry
// point. Assemblies that the function does not bring come from beside the client: the client itself, its registry of
// hooks, and Amazon.Lambda.Core. Deliberately absent: everything the client does itself.

using System;
using System.IO;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.Loader;
using System.Threading.Tasks;
using Amazon.Lambda.RuntimeSupport;

namespace Rekindle;

internal static class Launcher
{
    private static async Task Main(string[] arguments)
    {
        AssemblyLoadContext.Default.Resolving += FindBesideTheClient;
        if (arguments[0] == "--check")
        {
            Check();
            return;
        }
        await Run(arguments[0]);
    }

    /// A method of its own, so that the client is looked for only after the line above.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static Task Run(string handler) => new RuntimeSupportInitializer(handler).RunLambdaBootstrap();

    /// Loads the client and says its version: what an install wants to know.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Check() => Console.WriteLine(typeof(RuntimeSupportInitializer).Assembly.GetName().Version);

    private static Assembly? FindBesideTheClient(AssemblyLoadContext context, AssemblyName name)
    {
        var directory = Path.GetDirectoryName(typeof(Launcher).Assembly.Location)!;
        var path = Path.Combine(directory, name.Name + ".dll");
        return File.Exists(path) ? context.LoadFromAssemblyPath(path) : null;
    }
}
