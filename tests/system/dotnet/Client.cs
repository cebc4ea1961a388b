// Stands in for the AWS client in tests of how class libraries are started: the one class that the launcher knows, with just
// enough behind it to call a static method of the function. NuGet is not asked in tests.

using System;
using System.Reflection;
using System.Text.Json;
using System.Threading.Tasks;

[assembly: AssemblyVersion("0.0.1.0")]

namespace Amazon.Lambda.RuntimeSupport;

public sealed class RuntimeSupportInitializer
{
    private readonly Func<JsonElement, object> function;

    public RuntimeSupportInitializer(string handler)
    {
        var parts = handler.Split("::");
        var type = Assembly.Load(parts[0]).GetType(parts[1], throwOnError: true)!;
        var method = type.GetMethod(parts[2]) ?? throw new MissingMethodException(parts[1], parts[2]);
        function = method.CreateDelegate<Func<JsonElement, object>>();
    }

    public Task RunLambdaBootstrap() => new RuntimeApi().Run(function);
}
