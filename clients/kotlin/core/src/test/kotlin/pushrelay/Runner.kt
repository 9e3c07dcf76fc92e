package pushrelay

import java.lang.reflect.InvocationTargetException
import kotlin.system.exitProcess

/** Runs every public method without arguments of the test classes: this build has no JUnit. */
fun main() {
    var passed = 0
    var failed = 0
    for (type in listOf(JsonTest::class.java, PushTest::class.java, AdviceTest::class.java, ClientTest::class.java)) {
        for (method in type.methods.filter { it.declaringClass == type && it.parameterCount == 0 }.sortedBy { it.name }) {
            try {
                method.invoke(type.getDeclaredConstructor().newInstance())
                passed++
            } catch (error: InvocationTargetException) {
                failed++
                println("FAILED ${type.simpleName}: ${method.name}: ${error.targetException}")
            }
        }
    }
    println("$passed passed, $failed failed")
    if (failed > 0 || passed == 0) exitProcess(1)
}
