package androidx.work

import android.content.Context
import java.util.concurrent.TimeUnit

class WorkerParameters

abstract class ListenableWorker {
    open class Result {
        companion object {
            fun success() = Result()

            fun retry() = Result()
        }
    }
}

abstract class Worker(val applicationContext: Context, val parameters: WorkerParameters) : ListenableWorker() {
    abstract fun doWork(): Result
}

enum class NetworkType { CONNECTED }

enum class BackoffPolicy { EXPONENTIAL }

enum class OutOfQuotaPolicy { RUN_AS_NON_EXPEDITED_WORK_REQUEST }

enum class ExistingWorkPolicy { REPLACE, APPEND_OR_REPLACE }

enum class ExistingPeriodicWorkPolicy { KEEP }

class Constraints {
    class Builder {
        fun setRequiredNetworkType(type: NetworkType): Builder = also { check(type.name.isNotEmpty()) }

        fun build() = Constraints()
    }
}

class OneTimeWorkRequest {
    class Builder(val worker: Class<out Worker>) {
        fun setConstraints(constraints: Constraints): Builder = also { check("$constraints".isNotEmpty()) }

        fun setExpedited(policy: OutOfQuotaPolicy): Builder = also { check(policy.name.isNotEmpty()) }

        fun setBackoffCriteria(policy: BackoffPolicy, delay: Long, unit: TimeUnit): Builder =
            also { check("$policy$delay$unit".isNotEmpty()) }

        fun build() = OneTimeWorkRequest()
    }
}

class PeriodicWorkRequest {
    class Builder(val worker: Class<out Worker>, val interval: Long, val unit: TimeUnit) {
        fun setConstraints(constraints: Constraints): Builder = also { check("$constraints".isNotEmpty()) }

        fun build() = PeriodicWorkRequest()
    }
}

class WorkManager private constructor() {
    fun enqueueUniqueWork(name: String, policy: ExistingWorkPolicy, request: OneTimeWorkRequest): Unit =
        throw NotImplementedError("a stub of WorkManager, for $name, $policy, $request")

    fun enqueueUniquePeriodicWork(name: String, policy: ExistingPeriodicWorkPolicy, request: PeriodicWorkRequest): Unit =
        throw NotImplementedError("a stub of WorkManager, for $name, $policy, $request")

    companion object {
        fun getInstance(context: Context): WorkManager = throw NotImplementedError("a stub of WorkManager, for $context")
    }
}
