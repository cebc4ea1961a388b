// A class library whose method is the handler. It depends on another assembly of its package.

using System.Reflection;
using System.Text.Json;

namespace Library;

public static class Function
{
    public static object Handle(JsonElement input) => new
    {
        got = Helper.Add(input.GetProperty("n").GetInt32(), 1),
        helper = typeof(Helper).Assembly.Location,
        program = Assembly.GetEntryAssembly()!.Location,
    };
}
