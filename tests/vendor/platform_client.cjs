// Lets the vendor's JavaScript client do with the simulator what the jobs of the platform kinds do.
//
// Arguments: the port of the simulator, and the id of a message flow. Prints what differs from what is expected, one line
// each, and exits with 1 if anything does.

const vendor = require('purecloud-platform-client-v2');

const FILE = '3f504e00-4f89-41d3-9a0c-0305e82c3301';
const MALWARE = 'f3504e00-4f89-41d3-9a0c-0305e82c3301';
const CONVERSATION = '6b1f0c9e-52f3-4d6f-9d3a-0c7f7a1e2b3c';
const PARTICIPANT = '0f8fad5b-d9cb-469f-a165-70867728950e';
const SOURCE = 'amazon-eventbridge-source';

const [port, flow] = process.argv.slice(2);
const wrong = [];

function expect(what, found, wanted) {
  const [is, should] = [found, wanted].map((value) => JSON.stringify(value));
  if (is !== should) wrong.push(`${what}: ${is}, not ${should}`);
}

async function webDeployments() {
  const api = new vendor.WebDeploymentsApi();
  const found = await new vendor.ArchitectApi().getFlow(flow);
  expect('the type of the flow', found.type, 'INBOUNDSHORTMESSAGE');
  const limits = await new vendor.OrganizationApi().getOrganizationsLimitsNamespace('web.deployments');
  expect('the limits', limits.entities.map((limit) => limit.key).sort(), ['configuration.max', 'deployments.max']);

  const document = { name: 'Theirs', languages: ['en-us'], defaultLanguage: 'en-us' };
  const made = await api.postWebdeploymentsConfigurations(document);
  expect('a new configuration', made.version, 'DRAFT');
  const draft = await api.getWebdeploymentsConfigurationVersionsDraft(made.id);
  await api.putWebdeploymentsConfigurationVersionsDraft(made.id, { ...draft, description: 'changed' });
  const published = await api.postWebdeploymentsConfigurationVersionsDraftPublish(made.id);
  const version = await api.getWebdeploymentsConfigurationVersion(made.id, published.version);
  expect('the published version', [version.version, version.description], ['1', 'changed']);

  const deployment = await api.postWebdeploymentsDeployments({
    name: 'Theirs',
    allowAllDomains: false,
    allowedDomains: ['their.example'],
    flow: { id: flow },
    configuration: { id: made.id, version: published.version },
  });
  const served = await api.getWebdeploymentsDeploymentConfigurations(deployment.id);
  expect('what is served', served.configurationVersion.id, made.id);
  const whole = await api.getWebdeploymentsDeployment(deployment.id);
  const changed = await api.putWebdeploymentsDeployment(deployment.id, { ...whole, status: 'Inactive' });
  expect('the changed status', changed.status, 'Inactive');
  const listed = await api.getWebdeploymentsDeployments({ pageSize: '100' });
  expect('the deployments', listed.entities.map((one) => one.id), [deployment.id]);
  const spare = await api.postWebdeploymentsConfigurations({ ...document, name: 'Spare' });
  await api.deleteWebdeploymentsConfiguration(spare.id);
  const configurations = await api.getWebdeploymentsConfigurations();
  expect('the configurations', configurations.entities.map((one) => one.id), [made.id]);
}

async function eventBridge() {
  const api = new vendor.IntegrationsApi();
  const type = await api.getIntegrationsType(SOURCE);
  expect('the type has a limit', typeof type.maxInstances, 'number');
  const made = await api.postIntegrations({ body: { name: 'theirs', integrationType: { id: SOURCE } } });
  const config = await api.getIntegrationConfigCurrent(made.id);
  const properties = {
    awsAccountId: '123456789012',
    awsAccountRegion: 'eu-central-1',
    eventSourceSuffix: 'theirs',
    eventFilter: ['v2.users.{id}.presence'],
  };
  const stored = await api.putIntegrationConfigCurrent(made.id, { body: { ...config, properties } });
  expect('the properties', stored.properties.eventFilter, properties.eventFilter);
  const stale = await api.putIntegrationConfigCurrent(made.id, { body: { ...config, properties } }).catch((e) => e.status);
  expect('a stale version', [400, 409].includes(stale), true);
  await api.patchIntegration(made.id, { body: { intendedState: 'ENABLED' } });
  let code;
  for (let looks = 0; looks < 100 && code !== 'ACTIVE'; looks += 1) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    code = (await api.getIntegration(made.id)).reportedState?.code;
  }
  expect('the reported state', code, 'ACTIVE');
  const listed = await api.getIntegrations({ integrationType: SOURCE, expand: ['config.current'], pageSize: 100, pageNumber: 1 });
  const found = listed.entities.map((one) => [one.name, one.config.current.properties.eventSourceSuffix]);
  expect('the integrations', found, [['theirs', 'theirs']]);
  expect('the organisation has an id', typeof (await new vendor.OrganizationApi().getOrganizationsMe()).id, 'string');
}

async function media() {
  const api = new vendor.ConversationsApi();
  const medium = await api.getConversationsMessageCommunicationMessagesMediaMediaId(CONVERSATION, 'c', FILE);
  expect('the medium has a link', typeof medium.url, 'string');
  const message = await api.getConversationsMessageMessage(CONVERSATION, MALWARE);
  expect('the attachments', message.normalizedMessage.content.filter((one) => one.attachment).length, 2);
  const email = await api.getConversationsEmailMessage(CONVERSATION, MALWARE);
  expect('the attachment of the e-mail', email.attachments.map((one) => one.attachmentId), [MALWARE]);
  const documents = new vendor.ContentManagementApi();
  const content = await documents.getContentmanagementDocumentContent(FILE);
  expect('the document has a link', typeof content.contentLocationUri, 'string');
  await api.patchConversationsMessageParticipantAttributes(CONVERSATION, PARTICIPANT, {
    body: { attributes: { 'genfleet.scan': 'malware' } },
  });
  await api.putConversationTags(CONVERSATION, { externalTag: 'genfleet:malware' });
  await api.postConversationDisconnect(CONVERSATION);
  await documents.deleteContentmanagementDocument(MALWARE);
}

async function main() {
  const client = vendor.ApiClient.instance;
  client.setGateway({ host: '127.0.0.1', protocol: 'http', port: Number(port) });
  await client.loginClientCredentialsGrant('vendor', 'hush');
  for (const drive of [webDeployments, eventBridge, media]) {
    await drive().catch((e) => wrong.push(`${drive.name}: ${e.stack ?? JSON.stringify(e)}`));
  }
  console.log(wrong.join('\n'));
  process.exit(wrong.length ? 1 : 0);
}

main();
