"""What bounds a call: deadline, retries, circuit breaker, semaphores, rates, hedging, fallback, and the policy that orders them."""
