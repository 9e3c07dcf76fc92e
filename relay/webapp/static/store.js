"use strict";
// What the web app keeps in this browser, in IndexedDB of its origin. Pages and service worker share this script; it is
// no module because not every browser runs a module as a service worker.
//
// Keys: registration {id, secret, login}, unanswered {id, secret, login, mailbox} (of a sign-in without an answer), endpoint
// (of the subscription that the relay has), authorization (of a sign-in at the company's page that has begun), quiet
// {from, to} in minutes of the day, receipts [{id, at}] that wait, language (that a person chose), welcomed, skipped. A
// password is never kept.
(() => {
  const NAME = "relay-web";
  const STORE = "values";

  function open() {
    return new Promise((resolve, reject) => {
      const asked = indexedDB.open(NAME, 1);
      asked.onupgradeneeded = () => asked.result.createObjectStore(STORE);
      asked.onsuccess = () => resolve(asked.result);
      asked.onerror = () => reject(asked.error);
    });
  }

  async function run(mode, work) {
    const database = await open();
    try {
      return await new Promise((resolve, reject) => {
        const transaction = database.transaction(STORE, mode);
        const asked = work(transaction.objectStore(STORE));
        transaction.oncomplete = () => resolve(asked.result);
        transaction.onabort = () => reject(transaction.error);
      });
    } finally {
      database.close();
    }
  }

  self.relayStore = {
    get: (name) => run("readonly", (store) => store.get(name)),
    set: (name, value) => run("readwrite", (store) => store.put(value, name)),
    remove: (name) => run("readwrite", (store) => store.delete(name)),
    clear: () => run("readwrite", (store) => store.clear()),
  };
})();
