// An assembly that the class library brings along.

namespace Library;

public static class Helper
{
    public static int Add(int left, int right) => left + right;
}
